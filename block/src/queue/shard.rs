//! One CPU's part of a queue: its slots, its lines, its callout, under a lock of its own. With it what runs in its bottom halves.
//!
//! A device with several queues has as many shards: CPUs that send to queues of their own do not meet. A shard is where the completions of its
//! requests go; a tag names it.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering};

use undercroft_hal::BottomHalf;
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_timer::Callout;

use super::broken::{self, Hazard};
use super::common::Common;
use super::job::Place;
use super::state::State;
use crate::{Error, Event, InFlight, Tag};

/// Completions that one run of the bottom half delivers.
const BATCH: usize = 32;
/// No device calls a request this: its queue, slot and generation would all be the last.
const NO_TAG: u64 = u64::MAX;

pub(crate) struct Shard {
    pub(super) common: Arc<Common>,
    pub(super) state: IrqSpinLock<State>,
    /// By slot, how the device calls the request that it has from there.
    device_tags: Box<[AtomicU64]>,
    pub(super) callout: Callout<BottomHalf>,
    pub(super) work: BottomHalfWork,
}

impl Shard {
    /// Shard `number`, which takes requests of CPU `number`, with so many slots of which the device is given `depth` at once.
    pub(super) fn new(common: &Arc<Common>, number: u16, capacity: u16, depth: u32) -> Arc<Self> {
        let cpu = usize::from(number);
        Arc::new_cyclic(|this: &Weak<Self>| {
            let (expires, works) = (Weak::clone(this), Weak::clone(this));
            Self {
                common: Arc::clone(common),
                state: IrqSpinLock::new(Rank::BLOCK, State::new(number, capacity, common.watchers.len(), depth)),
                device_tags: (0..capacity).map(|_| AtomicU64::new(NO_TAG)).collect(),
                callout: Callout::new(cpu, move |cx: &BottomHalf, _: &_| {
                    if let Some(shard) = expires.upgrade() {
                        shard.expire(cx);
                        if broken::is(Hazard::CalloutKeepsQueue) {
                            core::mem::forget(shard);
                        }
                    }
                }),
                work: BottomHalfWork::new(cpu, move |cx| works.upgrade().map_or(Turn::Done, |shard| shard.work(cx))),
            }
        })
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

    /// The device may have room again.
    pub(super) fn has_room(&self, cx: &BottomHalf) {
        {
            let mut state = self.state.lock();
            state.epoch += 1;
            (state.full, state.refusals) = (false, 0);
        }
        self.pump();
        self.tell_room(cx);
    }

    /// Takes nothing any more; a bottom half ends what waits.
    pub(super) fn die(&self, why: Error) {
        let mut state = self.state.lock();
        state.dead = state.dead.or(Some(why));
        drop(state);
        self.work.schedule();
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
        self.deliver_ended(cx);
        let dead = self.state.lock().dead;
        if let Some(dead) = dead {
            self.fail_waiting(cx, dead);
            if self.common.announces.swap(false, Ordering::AcqRel) {
                self.common.tell_all(cx, Event::Removed);
            }
        }
        self.pump();
        self.tell_room(cx);
        if self.state.lock().ended.is_empty() { Turn::Done } else { Turn::Again }
    }

    /// Hands some of what has ended to its submitters' completions.
    pub(super) fn deliver_ended(&self, cx: &BottomHalf) {
        for _ in 0..BATCH {
            let (flight, result) = {
                let mut state = self.state.lock();
                let Some(tag) = state.ended.pop_front() else { return };
                let Some(Place::Ended(result)) = state.jobs.get(tag).map(|job| job.place) else { continue };
                let Some(flight) = state.take_kept(tag) else { continue };
                (state.close(tag, flight.give_back()).accept(), result)
            };
            self.deliver(cx, flight, result);
        }
    }

    /// Hands a request to its submitter's completion.
    pub(super) fn deliver(&self, cx: &BottomHalf, flight: InFlight, result: Result<(), Error>) {
        {
            let stats = &mut self.state.lock().stats;
            stats.completed += 1;
            if let Err(error) = result
                && let Some(count) = stats.errors.get_mut(error as usize)
            {
                *count += 1;
            }
        }
        if let Err(error) = result
            && let Some(suppressed) = self.common.reports(error)
        {
            let request = flight.request();
            log::warn!(
                "{} {}: {:?} of {} blocks at {}: {error} ({suppressed} more errors since the last such line)",
                self.common.identity.controller,
                self.common.identity.serial,
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
        for (at, watcher) in self.common.watchers.iter().enumerate() {
            if refused & 1 << at != 0 {
                Common::tell(cx, watcher, Event::Room);
            }
        }
    }
}
