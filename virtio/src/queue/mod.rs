//! The virtqueue, split (virtio 1.2, 2.7) and packed (2.8), driver's side.
//!
//! # Contract with the device
//! The device is an adversary. Everything the driver must remember (free descriptors, chains, what is in flight) is in private
//! memory; shared memory is written for the device and read once per value. [`Ring::pop`] guarantees that the id it returns is the head of a
//! chain in flight, returned once, and that the length is at most what the device was given to write. Anything else marks the queue broken:
//! it takes and returns nothing any more, and its owner resets the device.
//!
//! # Order of accesses
//! See [`Split::publish`] and [`Split::enable_interrupts`], and their twins of [`Packed`]: each stores an index, runs a full fence and loads what the other side stored
//! before its own. Whatever the interleaving, one side sees the other; `loom` runs the driver against a device here.
//!
//! # Contexts
//! Any; the owner provides the lock. Nothing allocates after [`Ring::new`].

mod chain;
mod event;
mod memory;
mod packed;
mod packed_chain;
mod packed_memory;
mod ring;
mod split;

#[cfg(all(not(loom), test))]
mod hazard_tests;
#[cfg(all(loom, test))]
mod loom_tests;
#[cfg(all(loom, test))]
mod packed_loom_tests;
#[cfg(all(not(loom), test))]
mod packed_tests;
#[cfg(all(not(loom), test))]
mod split_tests;

pub use chain::{AddError, Buffer, Chain};
pub use event::need_event;
pub use memory::{RingMemory, SharedRing};
pub use packed::Packed;
pub use packed_chain::PackedChain;
pub use packed_memory::{PackedMemory, SharedPacked};
pub use ring::{Ring, RingChain, Shape};
pub use split::{RingError, Split, Used};
