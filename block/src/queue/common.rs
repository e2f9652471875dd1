//! What all shards and handles of a queue share.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use core::time::Duration;

use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::{BottomHalf, Instant, cpu};

use super::Config;
use super::broken::{self, Hazard};
use super::shard::Shard;
use crate::{BlockDevice, Error, Event, Fault, Identity, Watcher};

/// How often a device's errors are reported at most.
const REPORT_EVERY: Duration = Duration::from_secs(1);

pub(super) type Watching = IrqSpinLock<Option<Arc<dyn Watcher>>>;

/// What was reported of errors.
struct Reports {
    next: Instant,
    since: u64,
    reported: u64,
    suppressed: u64,
}

pub(crate) struct Common {
    /// Handles keep the device. Requests that it has do not: a driver that is dropped ends them, and one that never ends them by itself would
    /// keep itself.
    pub device: Weak<dyn BlockDevice>,
    pub identity: Identity,
    pub config: Config,
    /// [`Config::timeout`] in nanoseconds.
    pub timeout: u64,
    pub watchers: Box<[Watching]>,
    /// Handles, and how many of them were ever made.
    pub handles: AtomicUsize,
    pub made: AtomicUsize,
    /// Shards that have the device reset: nothing is sent meanwhile.
    pub holds: AtomicU32,
    /// Several shards, of which one was refused by the device: a completion of another may be what it waits for.
    pub starved: AtomicBool,
    pub is_one: bool,
    /// The device is to go.
    pub retired: AtomicBool,
    /// Watchers are to be told so.
    pub announces: AtomicBool,
    given_up: AtomicBool,
    reports: IrqSpinLock<Reports>,
    /// All of them, once they are made.
    shards: IrqSpinLock<Arc<[Weak<Shard>]>>,
}

/// Hears the device.
struct Ear(Weak<Common>);

impl Watcher for Ear {
    fn event(&self, cx: &BottomHalf, event: Event) {
        if let Some(common) = self.0.upgrade() {
            common.heard(cx, event);
        }
    }
}

impl Common {
    /// All shards of a new queue.
    pub fn shards(device: &Arc<dyn BlockDevice>, config: Config) -> Box<[Arc<Shard>]> {
        let info = device.info();
        let count = cpu::count().min(usize::from(info.queues)).clamp(1, usize::from(u16::MAX)) as u32;
        let submitters = usize::from(config.submitters.clamp(1, 32));
        let reports = Reports { next: Instant::from_nanos(0), since: 0, reported: 0, suppressed: 0 };
        let common = Arc::new(Self {
            identity: device.identity().clone(),
            config,
            timeout: u64::try_from(config.timeout.as_nanos()).unwrap_or(u64::MAX),
            watchers: (0..submitters).map(|_| IrqSpinLock::new(Rank::BLOCK, None)).collect(),
            handles: AtomicUsize::new(1),
            made: AtomicUsize::new(1),
            holds: AtomicU32::new(0),
            starved: AtomicBool::new(false),
            is_one: count == 1,
            retired: AtomicBool::new(false),
            announces: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            reports: IrqSpinLock::new(Rank::BLOCK, reports),
            shards: IrqSpinLock::new(Rank::BLOCK, Arc::new([])),
            device: Arc::downgrade(device),
        });
        let depth = info.depth.clamp(1, u32::from(u16::MAX / 2));
        // A CPU that has the device for itself may have more than its part of it.
        let depth = depth.min(depth.div_ceil(count) * 2);
        let waiting = u32::from(config.waiting).div_ceil(count).max(1);
        let capacity = (depth + waiting).min(u32::from(u16::MAX - 1)) as u16;
        let shards: Box<[_]> = (0..count).map(|number| Shard::new(&common, number as u16, capacity, depth)).collect();
        let weak: Arc<[_]> = shards.iter().map(Arc::downgrade).collect();
        let none = core::mem::replace(&mut *common.shards.lock(), weak);
        drop(none);
        device.watch(Arc::new(Ear(Arc::downgrade(&common))));
        shards
    }

    /// Does `f` for each shard, with no lock held.
    pub fn each(&self, mut f: impl FnMut(&Shard)) {
        let shards = Arc::clone(&self.shards.lock());
        for shard in shards.iter().filter_map(Weak::upgrade) {
            f(&shard);
        }
    }

    /// Something happened to the device.
    fn heard(&self, cx: &BottomHalf, event: Event) {
        match event {
            Event::Room => self.each(|shard| shard.has_room(cx)),
            Event::Removed => {
                self.each(|shard| shard.die(Error::Removed));
                self.each(|shard| shard.fail_waiting(cx, Error::Removed));
                self.tell_all(cx, event);
            }
            _ => self.tell_all(cx, event),
        }
    }

    /// A request has come back: shards that were refused are to try again.
    #[cold]
    pub fn feed(&self) {
        if self.starved.swap(false, Ordering::SeqCst) && !broken::is(Hazard::Starves) {
            self.each(|shard| {
                let mut state = shard.state.lock();
                state.epoch += 1;
                (state.full, state.refusals) = (false, 0);
                drop(state);
                shard.work.schedule();
            });
        }
    }

    /// The device is not used any more. Whoever waits is told now, whether the device gives the buffers back or not.
    pub fn give_up(&self, cx: &BottomHalf, why: Error) {
        self.each(|shard| shard.die(why));
        self.each(|shard| shard.abandon_all(cx, why));
        if !self.given_up.swap(true, Ordering::AcqRel) {
            self.tell_all(cx, Event::Removed);
        }
    }

    /// A shard has the device reset, or does not any more.
    pub fn hold(&self, holds: bool) {
        if holds {
            self.holds.fetch_add(1, Ordering::AcqRel);
        } else if self.holds.fetch_sub(1, Ordering::AcqRel) == 1 {
            // What lined up meanwhile. Not here: the caller has a lock.
            self.each(|shard| shard.work.schedule());
        }
    }

    /// Whether an error is to be reported: `Some` with how many were not since the last one that was.
    pub fn reports(&self, error: Error) -> Option<u64> {
        // What the submitter did wrong or wanted is no news about the device.
        if error.fault() == Fault::Caller {
            return None;
        }
        let now = Instant::now();
        let mut reports = self.reports.lock();
        if now < reports.next && !broken::is(Hazard::ReportsAll) {
            reports.suppressed += 1;
            reports.since += 1;
            return None;
        }
        reports.next = now + REPORT_EVERY;
        reports.reported += 1;
        Some(core::mem::take(&mut reports.since))
    }

    /// Errors reported, and errors that came too fast after another.
    pub fn reported(&self) -> (u64, u64) {
        let reports = self.reports.lock();
        (reports.reported, reports.suppressed)
    }

    pub fn tell_all(&self, cx: &BottomHalf, event: Event) {
        for watcher in &self.watchers {
            Self::tell(cx, watcher, event);
        }
    }

    pub fn tell(cx: &BottomHalf, watcher: &Watching, event: Event) {
        let watcher = watcher.lock().clone();
        if let Some(watcher) = watcher {
            watcher.event(cx, event);
        }
    }
}
