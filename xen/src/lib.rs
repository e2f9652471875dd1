//! Xen's paravirtual devices for a guest: xenstore, the states of its bus, block devices.
//!
//! # Layers
//! `undercroft_hal::xen` is the hypervisor's interface: event channels, grants, shared pages. [`store`] is the data base by which domains
//! tell each other of their devices, [`bus`] the states by which two ends come together, [`blk`] block devices; [`control`] what is asked of the
//! domain itself.
//!
//! # The other domain
//! is an adversary with a written contract: whatever it says is read once, checked, and answered with a typed error; nothing it says makes
//! this crate panic.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

#[cfg(test)]
extern crate self as undercroft_xen;

pub mod blk;
pub mod bus;
pub mod control;
mod defect;
pub mod store;

#[cfg(test)]
mod tests;

/// What the guest allocates in a hard interrupt or under a spinlock ends the program.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: undercroft_hal::hosted::TrapAlloc = undercroft_hal::hosted::TrapAlloc::strict();

/// The example of the book.
#[cfg(doctest)]
#[doc = include_str!("../../docs/xen.md")]
mod book {}
