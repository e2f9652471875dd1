//! A queue before a device: any request size, deadlines, recovery.
//!
//! See ADR-4 for the design. A [`BlockQueue`] is a device itself and goes between a driver and everybody else. What the device takes as it is goes
//! straight through: one slot, no copy, no allocation. Otherwise:
//!
//! * A request larger than the device takes is cut. Its parts go one after another, each with the request's own buffers narrowed to it, so that there is
//!   never more than one owner; the first error ends the request.
//! * When the device is full, requests wait. Several submitters ([`BlockQueue::handle`]) take turns. What continues what is before it in line
//!   goes to the device together with that.
//! * A device that says BUSY gets a pause that grows, and fewer requests at once; more again as it does well.
//! * Every request has a deadline, its own or [`Config::timeout`]. One that waits is over then. One at the device starts the recovery ladder:
//!   [`Rung`]. What a reset ends of other requests is sent again, except flushes: they fail.
//! * A device that no rung brings back is given up. Whoever waits is told at once; requests that it still has come back without their
//!   buffers, which are freed if it ever gives them back, and never before.
//! * A write that is to be durable is followed by a flush where the device has no such writes.
//!
//! Contexts: [`BlockDevice::submit`], `commit` and `cancel` anywhere. Completions and events are bottom halves, with no lock held. One lock for
//! each of the device's queues ([`Rank::BLOCK`](undercroft_hal::sync::Rank::BLOCK)), not held while the device is called.

mod common;
mod complete;
mod expire;
mod job;
mod ladder;
mod merge;
mod part;
mod shard;
mod state;
mod stats;
mod submit;
#[cfg(test)]
mod tests;

use ::core::fmt;
use ::core::sync::atomic::Ordering;
use ::core::time::Duration;
use alloc::sync::Arc;

use crate::broken;

pub use self::ladder::Rung;
pub use self::stats::{QueueStats, RungStats};

use self::common::Common;
use self::shard::Shard;
use crate::scsi::Managed;
use crate::{BlockDevice, Error, Identity, Info, Recovery, Rejected, Request, Tag, Watcher};

/// How a queue behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// The deadline of a request that has none, from its submission on.
    pub timeout: Duration,
    /// How long each rung of the ladder may take, in the order of [`Rung::ALL`].
    pub rungs: [Duration; Rung::ALL.len()],
    /// Requests that may wait, besides those that the device takes at once.
    pub waiting: u16,
    /// Submitters that take turns, at most 32.
    pub submitters: u8,
}

impl Default for Config {
    /// 30 seconds for a request; 5, 10, 10 and 20 seconds for the rungs; 128 waiting requests of up to 4 submitters.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { timeout: seconds(30), rungs: [5, 10, 10, 20].map(seconds), waiting: 128, submitters: 4 }
    }
}

/// A queue before a device, as one of its submitters has it.
pub struct BlockQueue {
    /// By CPU, as far as the device has queues.
    shards: Arc<[Arc<Shard>]>,
    common: Arc<Common>,
    device: Arc<dyn BlockDevice>,
    from: u8,
}

impl BlockQueue {
    /// Puts a queue before a device, and becomes its watcher. Allocates everything that requests will need. Task context.
    pub fn new(device: Arc<dyn BlockDevice>, config: Config) -> Self {
        let shards: Arc<[_]> = Common::shards(&device, config).into();
        let common = Arc::clone(&shards[0].common);
        Self { shards, common, device, from: 0 }
    }

    /// The queue for a further submitter, with a line and a watcher of its own. `None`: there are [`Config::submitters`].
    pub fn handle(&self) -> Option<Self> {
        let most = self.common.watchers.len();
        let made = &self.common.made;
        let from =
            made.fetch_update(Ordering::AcqRel, Ordering::Acquire, |made| (made < most).then_some(made + 1)).ok()?;
        self.common.handles.fetch_add(1, Ordering::AcqRel);
        let (shards, common) = (Arc::clone(&self.shards), Arc::clone(&self.common));
        Some(Self { shards, common, device: Arc::clone(&self.device), from: from as u8 })
    }

    /// The device below.
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    /// The device is to go, its driver first: nothing is taken any more, what waits ends with [`Error::Removed`] from a bottom half, and every
    /// watcher is told that the device is removed. What is at the device still ends as the device says. When that is back and the last handle
    /// dropped, the device is let go. Any context.
    pub fn retire(&self) {
        if !self.common.retired.swap(true, Ordering::AcqRel) {
            self.shards.iter().for_each(|shard| shard.die(Error::Removed));
            // Every shard refuses by now.
            self.common.announces.store(true, Ordering::Release);
            self.here().work.schedule();
        }
    }

    /// What it has seen so far. Any context.
    pub fn stats(&self) -> QueueStats {
        let mut all = QueueStats::default();
        for shard in &*self.shards {
            let state = shard.state.lock();
            let waiting = state.waits as u32;
            all.add(&QueueStats { depth: state.limit, at_device: state.at_device, waiting, ..state.stats });
        }
        (all.reported, all.suppressed) = self.common.reported();
        all
    }

    /// The shard of the calling CPU.
    #[inline]
    fn here(&self) -> &Arc<Shard> {
        let cpu = ::undercroft_hal::cpu::current();
        self.shards.get(cpu).unwrap_or_else(|| &self.shards[cpu % self.shards.len()])
    }

    fn cancel_there(&self, tag: Tag) -> bool {
        self.shards.get(usize::from(tag.queue())).is_some_and(|shard| shard.cancel(tag))
    }
}

impl BlockDevice for BlockQueue {
    fn identity(&self) -> &Identity {
        &self.common.identity
    }

    /// The device's. Its limits are what goes through in one piece; larger requests are cut.
    fn info(&self) -> Info {
        self.device.info()
    }

    #[inline]
    fn submit(&self, request: Request) -> Result<Tag, Rejected> {
        self.here().submit(&*self.device, self.from, request)
    }

    fn commit(&self) {
        self.device.commit();
    }

    fn cancel(&self, tag: Tag) -> bool {
        self.cancel_there(tag)
    }

    fn recover(&self, what: Recovery) -> Managed {
        match what {
            // The queue's tags are not the device's.
            Recovery::Abort(tag) => {
                if self.cancel_there(tag) {
                    Managed::Asked
                } else {
                    Managed::NoCommand
                }
            }
            what => self.device.recover(what),
        }
    }

    fn watch(&self, watcher: Arc<dyn Watcher>) {
        if let Some(slot) = self.common.watchers.get(usize::from(self.from)) {
            let before = slot.lock().replace(watcher);
            drop(before);
        }
    }
}

impl Drop for BlockQueue {
    fn drop(&mut self) {
        if self.common.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            // What waits ends; what is at the device keeps the queue until it is back.
            self.shards.iter().for_each(|shard| shard.die(Error::Removed));
        }
    }
}

impl fmt::Debug for BlockQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockQueue({} {})", self.common.identity.controller, self.common.identity.serial)
    }
}
