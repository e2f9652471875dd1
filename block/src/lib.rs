//! The block-device contract of Undercroft.
//!
//! # Architecture
//! A driver gives an `Arc<dyn BlockDevice>`. A [`Request`] owns its buffers and says what to do when it is done; [`BlockDevice::submit`]
//! takes it, or gives it back with the reason. Accepted, it is an [`InFlight`], which must be finished exactly once; its completion runs in
//! bottom-half context, never inside `submit`, with no lock held. Drivers keep what is in flight in a [`Slab`], allocated once.
//!
//! # Error model
//! [`Error`] is small and `Copy`, and says whose fault it was. A request that breaks the device's limits is refused at `submit`; what fails
//! later arrives at the completion.
//!
//! # Guarantees
//! * Reads and writes of overlapping ranges in flight together have no order. Finished writes are seen by later reads.
//! * A write is durable once a flush that was submitted after its completion has succeeded, or at once with [`Body::fua`]. On a device
//!   without a volatile cache a flush succeeds with nothing to do; one that was not performed is never reported as done.
//! * After initialisation the path of a request allocates nothing.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod adapter;
mod bounce;
mod broken;
mod data;
mod device;
mod error;
mod info;
pub mod partition;
pub mod queue;
mod request;
pub mod scsi;
mod slab;
#[cfg(test)]
mod testing;

/// What the guest allocates in a hard interrupt or under a spinlock ends the program (A-GEN-03).
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: undercroft_hal::hosted::TrapAlloc = undercroft_hal::hosted::TrapAlloc::strict();

pub use bounce::Bounce;
pub use data::{Data, Piece, Window};
pub use device::{BlockDevice, Event, Recovery, Refusal, Rejected, Reset, Watcher};
pub use error::{Error, Fault};
pub use info::{Features, Identity, Info, Limits};
pub use request::{Blank, Body, Complete, Completion, InFlight, Op, Request};
pub use slab::{Slab, Tag};
