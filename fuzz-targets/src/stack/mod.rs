//! The whole stack on a simulated machine: a script of bytes for disks on any buses, with an oracle beside each.
//!
//! The first four bytes choose the machine; each six after them are something to do. At every step: exactly one end for each operation, in a
//! bottom half and with no lock held; reads that linearise with the writes; nothing fails for which there is no cause; each request ends
//! within its ladder's time. At the end no memory, no handler and no request is left, and the driver has kept to the device's specification.
//! What was flushed is there after a power cut.

mod bus;
mod cache;
mod oracle;
mod run;
mod sink;

pub use bus::Kind;
pub use cache::cache;
pub use run::disks;

/// What may happen to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// Requests fail, are late, are lost.
    pub faults: bool,
    /// Hosts lie: then what is read is not looked at any more.
    pub lies: bool,
    /// The power goes.
    pub cuts: bool,
    /// Devices are pulled out.
    pub pulls: bool,
    /// Memory runs out.
    pub memory: bool,
    /// The machine stands still, and its clock jumps.
    pub pauses: bool,
}

impl Rules {
    /// Nothing goes wrong.
    pub const QUIET: Self =
        Self { faults: false, lies: false, cuts: false, pulls: false, memory: false, pauses: false };
    /// Everything that a good device and a bad day may do.
    pub const ROUGH: Self = Self { faults: true, cuts: true, pulls: true, memory: true, pauses: true, ..Self::QUIET };
    /// A host that is an enemy.
    pub const HOSTILE: Self = Self { faults: true, lies: true, ..Self::QUIET };
}
