//! A drive as a block device. Made in task context; used as [`BlockDevice`] says.

use alloc::sync::Arc;

use undercroft_block::scsi::Managed;
use undercroft_block::{BlockDevice, Error, Identity, Info, Recovery, Rejected, Request, Reset, Tag, Watcher};
use undercroft_hal::Instant;

use crate::channel::Channel;

/// What happened seldom on a channel, both drives together, since it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Commands that had had their time.
    pub timeouts: u32,
    /// Commands that were over without an interrupt that reached us.
    pub lost_interrupts: u32,
    /// Software resets.
    pub resets: u32,
    /// Commands issued another time.
    pub issued_again: u32,
    /// Interrupts of a drive whose command was not over.
    pub early_interrupts: u32,
    /// Interrupts on the channel's line that neither drive had asked for.
    pub foreign_interrupts: u32,
}

/// An ATA disk.
///
/// Dropping it (task or bottom-half context, no lock held) ends it: what waits finishes with
/// [`Error::Removed`](undercroft_block::Error::Removed) from a bottom half, and so does what is out, after a reset of the channel; the other
/// drive's command is issued again.
pub struct AtaDisk {
    channel: Arc<Channel>,
    drive: usize,
    identity: Identity,
}

impl core::fmt::Debug for AtaDisk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("AtaDisk").field("identity", &self.identity).field("info", &self.info()).finish()
    }
}

impl AtaDisk {
    pub(crate) const fn new(channel: Arc<Channel>, drive: usize, identity: Identity) -> Self {
        Self { channel, drive, identity }
    }

    /// Tells the driver what time it is: requests that wait past their deadline finish with
    /// [`Error::TimedOut`](undercroft_block::Error::TimedOut), a command that has had its time is looked at once more, in case its interrupt
    /// was lost, and else cut off by a software reset, after which it is issued again, three times in all. Returns when to call next, at the
    /// latest; `None` while nothing can be late. Any context.
    ///
    /// This is the first rung of recovery; [`AtaDisk::reset_channel`] and [`AtaDisk::fail`] are the ones above it.
    pub fn expire(&self, now: Instant) -> Option<Instant> {
        self.channel.expire(now)
    }

    /// Resets the channel, both drives of it, by software, and has the command that is out issued again. What is waiting stays. A
    /// drive that does not come back is given up. Any context.
    pub fn reset_channel(&self) {
        self.channel.reset();
    }

    /// Gives the drive up: all that is in flight finishes with `error` from a bottom half, and nothing is taken any more. Any context.
    pub fn fail(&self, error: Error) {
        self.channel.end(self.drive, error);
    }

    /// What happened seldom on its channel. Any context.
    pub fn counters(&self) -> Counters {
        self.channel.counters()
    }
}

impl BlockDevice for AtaDisk {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    /// # Panics
    /// Never: a disk is made of a drive that is there.
    fn info(&self) -> Info {
        self.channel.info(self.drive).expect("a disk is made of a drive that is there")
    }

    fn submit(&self, request: Request) -> Result<Tag, Rejected> {
        self.channel.submit(self.drive, request)
    }

    fn commit(&self) {
        self.channel.commit();
    }

    fn cancel(&self, tag: Tag) -> bool {
        self.channel.cancel(self.drive, tag)
    }

    fn reset(&self, _: Reset) -> bool {
        self.channel.reset_and_end()
    }

    fn recover(&self, what: Recovery) -> Managed {
        match what {
            // What waits ends at once. What is out is looked at once more, as its interrupt may have been lost; a drive cannot be told to stop.
            Recovery::Abort(tag) if self.channel.abort(self.drive, tag) => Managed::Asked,
            Recovery::Abort(_) => Managed::NoCommand,
            // Only both drives of a cable can be reset.
            Recovery::ResetUnit => Managed::Unsupported,
            Recovery::ResetBus(_) | Recovery::ResetController if self.channel.reset_and_end() => Managed::Asked,
            Recovery::ResetBus(_) | Recovery::ResetController => Managed::Refused,
        }
    }

    fn watch(&self, watcher: Arc<dyn Watcher>) {
        self.channel.watch(self.drive, watcher);
    }
}

impl Drop for AtaDisk {
    fn drop(&mut self) {
        self.channel.remove(self.drive);
    }
}
