//! What all handles of a queue share, and what runs in its bottom halves.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;

use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::{BottomHalf, Instant, cpu};
use undercroft_timer::Callout;

use super::Config;
use super::broken::{self, Hazard};
use super::job::Place;
use super::state::State;
use crate::{BlockDevice, Error, Event, Fault, Identity, InFlight, Tag, Watcher};

/// How often a device's errors are reported at most.
pub(super) const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Completions that one run of the bottom half delivers.
const BATCH: usize = 32;
/// No device calls a request this: its queue, slot and generation would all be the last.
const NO_TAG: u64 = u64::MAX;

/// Who is told of events, if anybody.
type Watching = Option<Arc<dyn Watcher>>;

pub(crate) struct Core {
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) identity: Identity,
    pub(super) config: Config,
    pub(super) state: IrqSpinLock<State>,
    /// By slot, how the device calls the request that it has from there.
    device_tags: Box<[AtomicU64]>,
    pub(super) callout: Callout<BottomHalf>,
    pub(super) work: BottomHalfWork,
    pub(super) watchers: Box<[IrqSpinLock<Watching>]>,
    /// Handles, and how many of them were ever made.
    pub(super) handles: AtomicUsize,
    pub(super) made: AtomicUsize,
}

/// Hears the device.
struct Ear(Weak<Core>);

impl Watcher for Ear {
    fn event(&self, cx: &BottomHalf, event: Event) {
        if let Some(core) = self.0.upgrade() {
            core.heard(cx, event);
        }
    }
}

impl Core {
    pub(super) fn new(device: Arc<dyn BlockDevice>, config: Config) -> Arc<Self> {
        let info = device.info();
        let depth = info.depth.clamp(1, u32::from(u16::MAX / 2));
        let capacity = (depth as u16).saturating_add(config.waiting.max(1));
        let submitters = usize::from(config.submitters.clamp(1, 32));
        let core = Arc::new_cyclic(|this: &Weak<Self>| {
            let (expires, works) = (Weak::clone(this), Weak::clone(this));
            Self {
                identity: device.identity().clone(),
                config,
                state: IrqSpinLock::new(Rank::BLOCK, State::new(capacity, submitters, depth)),
                device_tags: (0..capacity).map(|_| AtomicU64::new(NO_TAG)).collect(),
                callout: Callout::new(cpu::current(), move |cx: &BottomHalf, _: &_| {
                    if let Some(core) = expires.upgrade() {
                        core.expire(cx);
                    }
                }),
                work: BottomHalfWork::new(cpu::current(), move |cx| {
                    works.upgrade().map_or(Turn::Done, |core| core.work(cx))
                }),
                watchers: (0..submitters).map(|_| IrqSpinLock::new(Rank::BLOCK, None)).collect(),
                handles: AtomicUsize::new(1),
                made: AtomicUsize::new(1),
                device,
            }
        });
        core.device.watch(Arc::new(Ear(Arc::downgrade(&core))));
        core
    }

    /// The device is about to be given the request of a slot. With the lock held.
    #[inline]
    pub(super) fn sending(&self, tag: Tag) {
        if let Some(device) = self.device_tags.get(usize::from(tag.index())) {
            device.store(NO_TAG, Ordering::Relaxed);
        }
    }

    /// The device has taken it, and calls it `device`.
    ///
    /// Without the lock, which the path of a request takes only twice. The request may be done by now and its slot used again: then this is a
    /// stale tag over a good one. The device knows that it is stale; recovery and cancellation do as if there were none.
    #[inline]
    pub(super) fn sent(&self, tag: Tag, device: Tag) {
        if let Some(slot) = self.device_tags.get(usize::from(tag.index())) {
            slot.store(device.to_bits(), Ordering::Relaxed);
        }
    }

    /// How the device calls the request of a slot, if it has said so yet.
    pub(super) fn device_tag(&self, tag: Tag) -> Option<Tag> {
        let bits = self.device_tags.get(usize::from(tag.index()))?.load(Ordering::Relaxed);
        (bits != NO_TAG).then(|| Tag::from_bits(bits))
    }

    /// Something happened to the device.
    fn heard(&self, cx: &BottomHalf, event: Event) {
        match event {
            Event::Room => {
                {
                    let mut state = self.state.lock();
                    state.epoch += 1;
                    state.full = false;
                }
                self.pump();
                self.tell_room(cx);
            }
            Event::Removed => {
                self.state.lock().dead = Some(Error::Removed);
                self.fail_waiting(cx, Error::Removed);
                self.tell_all(cx, event);
            }
            _ => self.tell_all(cx, event),
        }
    }

    /// Ends everything that waits. What is at the device is the device's to end.
    pub(super) fn fail_waiting(&self, cx: &BottomHalf, error: Error) {
        if broken::is(Hazard::ForgetsAtRemoval) {
            return;
        }
        loop {
            let flight = {
                let mut state = self.state.lock();
                let Some(tag) = state.pick() else { return };
                let Some(flight) = state.take_kept(tag) else { continue };
                state.close(tag, flight.give_back()).accept()
            };
            self.deliver(cx, flight, Err(error));
        }
    }

    /// The queue's bottom half: what could not be completed where it ended.
    fn work(&self, cx: &BottomHalf) -> Turn {
        for _ in 0..BATCH {
            let (flight, result) = {
                let mut state = self.state.lock();
                let Some(tag) = state.ended.pop_front() else { break };
                let Some(Place::Ended(result)) = state.jobs.get(tag).map(|job| job.place) else { continue };
                let Some(flight) = state.take_kept(tag) else { continue };
                (state.close(tag, flight.give_back()).accept(), result)
            };
            self.deliver(cx, flight, result);
        }
        let dead = self.state.lock().dead;
        if let Some(dead) = dead {
            self.fail_waiting(cx, dead);
        }
        self.pump();
        self.tell_room(cx);
        if self.state.lock().ended.is_empty() { Turn::Done } else { Turn::Again }
    }

    /// Hands a request to its submitter's completion.
    pub(super) fn deliver(&self, cx: &BottomHalf, flight: InFlight, result: Result<(), Error>) {
        let report = {
            let mut state = self.state.lock();
            state.stats.completed += 1;
            result.err().and_then(|error| state.account(error))
        };
        if let (Some(suppressed), Err(error)) = (report, result) {
            let request = flight.request();
            log::warn!(
                "{} {}: {:?} of {} blocks at {}: {error} ({suppressed} more errors since the last such line)",
                self.identity.controller,
                self.identity.serial,
                request.op,
                request.blocks,
                request.lba
            );
        }
        flight.finish(cx, result);
    }

    /// Tells whoever was refused that there is room.
    pub(super) fn tell_room(&self, cx: &BottomHalf) {
        let refused = {
            let mut state = self.state.lock();
            if state.refused == 0 || state.jobs.is_full() {
                return;
            }
            core::mem::take(&mut state.refused)
        };
        for (at, watcher) in self.watchers.iter().enumerate() {
            if refused & 1 << at != 0 {
                Self::tell(cx, watcher, Event::Room);
            }
        }
    }

    pub(super) fn tell_all(&self, cx: &BottomHalf, event: Event) {
        for watcher in &self.watchers {
            Self::tell(cx, watcher, event);
        }
    }

    fn tell(cx: &BottomHalf, watcher: &IrqSpinLock<Option<Arc<dyn Watcher>>>, event: Event) {
        let watcher = watcher.lock().clone();
        if let Some(watcher) = watcher {
            watcher.event(cx, event);
        }
    }
}

impl State {
    /// Counts an error. `Some`: it is to be reported, and so many were not since the last one.
    fn account(&mut self, error: Error) -> Option<u64> {
        if let Some(count) = self.stats.errors.get_mut(error as usize) {
            *count += 1;
        }
        // What the submitter did wrong or wanted is no news about the device.
        if error.fault() == Fault::Caller {
            return None;
        }
        let now = Instant::now();
        if now < self.next_report && !broken::is(Hazard::ReportsAll) {
            self.stats.suppressed += 1;
            self.since_report += 1;
            return None;
        }
        self.next_report = now + REPORT_EVERY;
        self.stats.reported += 1;
        Some(core::mem::take(&mut self.since_report))
    }
}
