//! ATA disks behind PCI bus-master IDE controllers: PIIX3, PIIX4 and what behaves like them.
//!
//! # Layers
//! [`wire`] holds the numbers of the specifications; `registers` the ports of a channel; `identify` what a drive says of itself, none of it
//! trusted; `channel` the two drives on a cable and the one command that may be on it; [`AtaDisk`] is a drive as a block device, which
//! [`probe()`] finds.
//!
//! # One command at a time
//! A channel carries one command, of one of its drives. Its bottom half alone touches the registers; submitters put requests into their
//! drive's queue, the interrupt handler reads the controller's status, acknowledges and schedules. Drives take turns command by command.
//!
//! # The host
//! is not trusted: whatever a drive or a controller says is checked, bounded in time, and answered with a typed error.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

mod channel;
mod defect;
mod disk;
mod error;
mod identify;
pub mod probe;
mod registers;
#[cfg(all(not(loom), test))]
mod tests;
pub mod wire;

pub use disk::{AtaDisk, Counters};
pub use error::ProbeError;
pub use probe::{Found, Other, probe, probe_except};
