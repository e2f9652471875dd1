//! SCSI: the command set, the disks, and the contract of what carries commands.
//!
//! # Architecture
//! A transport (virtio-scsi; PVSCSI and storvsc are others) implements [`Host`]: it carries a [`Command`] to a logical unit and brings
//! back an [`Outcome`]. What the command means is none of its business. A disk turns block requests into commands and outcomes into
//! typed errors, and is a [`BlockDevice`](crate::BlockDevice) like any other.
//!
//! A command is built in place around the block request that it serves: its CDB is inline, its data is the request's own buffers, and so
//! the path of a request allocates nothing. Like the request, it is linear: the host finishes it exactly once, in bottom-half context
//! with no lock held, or gives it back from [`Host::submit`].
//!
//! Sources: SAM-5 (architecture, LUN formats, status), SPC-5 (INQUIRY, sense data), SBC-4 (block commands).

mod bus;
mod command;
mod disk;
mod exchange;
mod host;
mod lun;
mod manage;
mod outcome;
#[cfg(test)]
mod pattern_tests;
mod probe;
#[cfg(test)]
mod testing;
mod verdict;
pub mod wire;

pub use bus::{Bus, Scan, scan};
pub(crate) use command::Frame;
pub use command::{Cdb, Command, Direction, Initiator};
pub use disk::ScsiDisk;
pub use host::{Host, HostEvent, HostIdentity, HostInfo, HostWatcher, Refused};
pub use lun::{Address, Lun, LunFormat};
pub use manage::{Managed, Management};
pub use outcome::{Outcome, Response, Status};
pub use probe::ProbeError;
pub use verdict::{Notices, Verdict, judge};
