//! What a queue has seen.

use core::time::Duration;

use crate::Error;
use crate::queue::Rung;

/// What one rung of the recovery ladder did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RungStats {
    /// Times that the device was asked.
    pub asked: u64,
    /// Times that it could not be: it has no such function, or was in no state for it.
    pub skipped: u64,
    /// Times that everything overdue came back on this rung.
    pub helped: u64,
    /// The longest time from the first deadline missed to that.
    pub longest: Duration,
}

/// Counts since the queue was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Requests accepted.
    pub accepted: u64,
    /// Requests completed, with whatever result.
    pub completed: u64,
    /// Requests that had to be cut, and the parts that were sent of those.
    pub split: u64,
    /// Parts of cut requests that were sent.
    pub parts: u64,
    /// Flushes sent for writes that were to be durable.
    pub flushes: u64,
    /// Requests that waited for room.
    pub waited: u64,
    /// Requests that went to the device as a part of another.
    pub merged: u64,
    /// At most so many waited at once.
    pub most_waiting: u32,
    /// The device said that it is busy.
    pub busy: u64,
    /// Requests sent again after a reset.
    pub resent: u64,
    /// Deadlines missed, waiting or at the device.
    pub overdue: u64,
    /// Overdue requests that the device finished after all.
    pub late: u64,
    /// Requests whose buffers stayed with a device that was given up, and those that it gave back later.
    pub orphans: u64,
    /// Orphans that the device gave back.
    pub orphans_returned: u64,
    /// Errors reported, and errors that came too fast after another.
    pub reported: u64,
    /// Errors not reported, because one had been just before.
    pub suppressed: u64,
    /// The rungs, in their order.
    pub rungs: [RungStats; Rung::ALL.len()],
    /// Failed requests by [`Error`], in the order of [`Error::ALL`].
    pub errors: [u64; Error::ALL.len()],
    /// The present bound of requests at the device.
    pub depth: u32,
    /// Requests at the device now.
    pub at_device: u32,
    /// Requests waiting now.
    pub waiting: u32,
}

impl QueueStats {
    /// Adds another part of the same queue.
    pub(super) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.completed += other.completed;
        self.split += other.split;
        self.parts += other.parts;
        self.flushes += other.flushes;
        self.waited += other.waited;
        self.merged += other.merged;
        self.most_waiting += other.most_waiting;
        self.busy += other.busy;
        self.resent += other.resent;
        self.overdue += other.overdue;
        self.late += other.late;
        self.orphans += other.orphans;
        self.orphans_returned += other.orphans_returned;
        self.depth += other.depth;
        self.at_device += other.at_device;
        self.waiting += other.waiting;
        for (rung, more) in self.rungs.iter_mut().zip(&other.rungs) {
            rung.asked += more.asked;
            rung.skipped += more.skipped;
            rung.helped += more.helped;
            rung.longest = rung.longest.max(more.longest);
        }
        for (count, more) in self.errors.iter_mut().zip(&other.errors) {
            *count += more;
        }
    }

    /// Requests that failed in all.
    pub fn failed(&self) -> u64 {
        self.errors.iter().sum()
    }
}
