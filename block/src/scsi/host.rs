//! The contract of a SCSI host: what carries commands.
//!
//! | driver | targets | LUNs | note |
//! |---|---|---|---|
//! | virtio-scsi | 0 to 255 | 0 to 16,383 | request queues, one per CPU at best |
//! | PVSCSI | 0 to 63 | 0 to 16,383 | hosts known today have LUN 0 only |
//! | storvsc | one per channel | 0 to 63 | |

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use undercroft_hal::BottomHalf;

use super::{Address, Command, Managed, Management};
use crate::{Limits, Refusal, Tag};

/// Who a host is. Fixed for its life. Its disks' [`Identity`](crate::Identity) is made from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostIdentity {
    /// The driver, by its crate's name for it: `virtio-scsi`.
    pub driver: &'static str,
    /// Where it is: `pci 0000:00:05.0`.
    pub controller: String,
    /// How it interrupts: `msi-x:3`, `intx`.
    pub interrupts: String,
    /// Negotiated transport features worth telling a user, separated by single spaces.
    pub transport: String,
}

/// What a host takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostInfo {
    /// Highest target that it addresses.
    pub max_target: u16,
    /// Highest LUN that it addresses.
    pub max_lun: u32,
    /// Queues that take commands independently.
    pub queues: u16,
    /// Commands in flight at most, over all queues.
    pub depth: u32,
    /// Commands in flight at most for one logical unit; 0 if the host sets no bound.
    pub depth_per_lun: u32,
    /// Limits of one command's data. The limits of discard and write-zeroes are not looked at: they are the disk's.
    pub limits: Limits,
}

/// A command that a host did not take, whole.
#[derive(Debug)]
pub struct Refused {
    /// The command, with its request.
    pub command: Command,
    /// Why.
    pub why: Refusal,
}

/// What happens to a host while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostEvent {
    /// A queue that had refused a command with [`Refusal::Full`] has room again.
    Room,
    /// A logical unit was added.
    Added(Address),
    /// A logical unit was removed.
    Removed(Address),
    /// A logical unit reports a change by its additional sense code and qualifier: capacity, say.
    Changed(Address, u8, u8),
    /// Something was added or removed, or events were lost: look at everything again.
    Rescan,
    /// The host is gone or broken: everything in flight is finished with an error, and nothing is taken any more.
    Gone,
}

/// Who is told of a host's events. Runs in bottom-half context with no lock held.
pub trait HostWatcher: Send + Sync {
    /// Something happened.
    fn event(&self, cx: &BottomHalf, event: HostEvent);
}

/// Carries commands to logical units.
pub trait Host: Send + Sync {
    /// Who it is.
    fn identity(&self) -> &HostIdentity;

    /// What it takes. Fixed for its life.
    fn info(&self) -> &HostInfo;

    /// Takes a command, on the queue of the calling CPU, or gives it back. Never finishes it inside the call. May wait for
    /// [`Host::commit`] before it starts. Any context.
    ///
    /// The initiator has checked the command's data against [`Limits`]; the host checks again what its rings depend on.
    ///
    /// # Errors
    /// [`Refused`] with the command: [`Refusal::Full`] if it can be tried again.
    fn submit(&self, command: Command) -> Result<Tag, Refused>;

    /// Starts what was submitted by this CPU: one doorbell for the batch. Any context.
    fn commit(&self);

    /// Asks that a command end soon. `true` if the host knows it and will try; in either case it is finished once. Any context.
    fn cancel(&self, tag: Tag) -> bool {
        let _ = tag;
        false
    }

    /// Asks the host to end commands that do not end by themselves. What ends comes back through the commands, each once. Task or
    /// bottom-half context, no lock held.
    fn manage(&self, what: Management) -> Managed {
        let _ = what;
        Managed::Unsupported
    }

    /// Sets who is told of events, replacing the one before. Task or bottom-half context.
    fn watch(&self, watcher: Arc<dyn HostWatcher>);
}

impl fmt::Debug for dyn Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.identity().driver, self.identity().controller)
    }
}
