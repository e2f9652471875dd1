//! Hyper-V's VMBus and its storage channels (storvsc): SCSI hosts for [`undercroft_block::scsi`].
//!
//! # Layers
//! [`wire`] holds the numbers and layouts; `ring` the rings, which know no bus; `bus` the connection with the host, its offers and its channels;
//! `host` a controller: what is in flight, the bottom halves, resets, the end. [`VmBus`] and [`Storvsc`] are what users see. The way to the
//! hypervisor is [`undercroft_hal::hyperv`].
//!
//! # The host
//! is an adversary with a written contract: whatever it says is read once, checked, and answered with a typed error; nothing it says makes
//! this crate panic. A completion names its command by queue, slot and generation; one of a command that is not in flight, an offset outside of its
//! ring, a packet of impossible length is a breach: the controller is closed for good and everything ends with
//! [`Response::Broken`](undercroft_block::scsi::Response::Broken), once the host has let go of the memory.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
// Under loom the rings alone are compiled for their models.
#![cfg_attr(loom, allow(dead_code, unused_imports))]

extern crate alloc;

mod bus;
mod defect;
mod error;
mod host;
mod ring;
mod settings;
mod storvsc;
#[cfg(all(not(loom), test))]
mod tests;
mod vmbus;
pub mod wire;

/// What the guest allocates in a hard interrupt or under a spinlock ends the program (A-GEN-03).
#[cfg(all(not(loom), test))]
#[global_allocator]
static ALLOCATOR: undercroft_hal::hosted::TrapAlloc = undercroft_hal::hosted::TrapAlloc::strict();

pub use bus::{BusCounts, BusWatcher, Offer};
pub use error::{BusError, ProbeError};
pub use host::Counts;
pub use settings::Settings;
pub use storvsc::Storvsc;
pub use vmbus::VmBus;
