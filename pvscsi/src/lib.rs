//! VMware's paravirtual SCSI host adapter (PVSCSI): a SCSI host for [`undercroft_block::scsi`].
//!
//! # Layers
//! [`wire`] holds the numbers and layouts of the interface; `rings` the three rings, which know no bus; `adapter` what is in flight, the
//! bottom half, the interrupts, task management and resets. [`Pvscsi`] is the host that users see, and [`probe`] finds it.
//!
//! # The host
//! is an adversary with a written contract: whatever it says is read once, checked, and answered with a typed error; nothing it says makes
//! this crate panic. A completion names its command by slot and generation; one of a command that is not in flight, or more of them than
//! commands are in flight, is a breach: the adapter is reset for good and everything ends with
//! [`Response::Broken`](undercroft_block::scsi::Response::Broken).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

mod adapter;
mod defect;
mod error;
mod host;
mod outcome;
mod pages;
mod registers;
mod rings;
mod tables;
#[cfg(all(not(loom), test))]
mod tests;
pub mod wire;

/// What the guest allocates in a hard interrupt or under a spinlock ends the program (A-GEN-03).
#[cfg(all(not(loom), test))]
#[global_allocator]
static ALLOCATOR: undercroft_hal::hosted::TrapAlloc = undercroft_hal::hosted::TrapAlloc::strict();

pub use adapter::Counts;
pub use error::ProbeError;
pub use host::{Pvscsi, probe};
