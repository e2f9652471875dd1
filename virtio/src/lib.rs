//! virtio 1.2 for storage: transports, split and packed virtqueues, virtio-blk and virtio-scsi.
//!
//! # Layers
//! [`wire`] holds the numbers and layouts of the specification; [`queue`] the ring, which knows no device and no bus; [`transport`] the two
//! buses; [`blk`] and [`scsi`] the drivers, which [`probe`] finds a place for. What the drivers have in common (queues, interrupts,
//! bottom halves, the end of a device) is one private module.
//!
//! # The host
//! is an adversary with a written contract: see [`queue`]. Whatever it says is read once, checked, and answered with a typed
//! error; nothing it says makes this crate panic.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod blk;
mod defect;
mod device;
mod error;
pub mod probe;
pub mod queue;
pub mod scsi;
pub mod transport;
pub mod wire;

/// What the guest allocates in a hard interrupt or under a spinlock ends the program (A-GEN-03).
#[cfg(all(not(loom), test))]
#[global_allocator]
static ALLOCATOR: undercroft_hal::hosted::TrapAlloc = undercroft_hal::hosted::TrapAlloc::strict();

pub use error::ProbeError;
pub use probe::{Found, probe_mmio, probe_mmio_within, probe_pci, probe_pci_within};
