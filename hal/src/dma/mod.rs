//! Memory that devices read and write.
//!
//! [`Coherent`] holds rings and control structures that driver and device use at the same time; every access is a
//! single volatile one, because the other side is an adversary that may change it at any moment. [`DmaBuf`] holds data:
//! it is either the owner's, who sees plain bytes, or moved into a request that a device works on. A buffer is freed by
//! its owner only, so memory that a device may still write cannot be freed by dropping a future or a request: the
//! driver's slot owns it until the device gave it back or was reset.
//!
//! [`Streaming`] takes any owned bytes to a device and back, with the direction in its type and through a bounce buffer where the device
//! cannot reach them.
//!
//! [`DmaPages`] lends runs of its pages to devices, as buffers.
//!
//! Allocation happens in task context; freeing in bottom half or task.

mod block;
mod buffer;
mod coherent;
mod direction;
mod layout;
mod ledger;
mod pages;
mod streaming;

pub use buffer::DmaBuf;
pub use coherent::Coherent;
pub use direction::{Bidirectional, Direction, FromDevice, ToDevice};
pub use layout::{DmaBlock, DmaConstraints, DmaError, DmaLayout};
pub(crate) use ledger::{Ledger, allocate, freeing};
pub use ledger::{Stats, stats};
pub use pages::{DmaPages, Lender};
pub use streaming::{Buffer, Given, MapError, Streaming, abandoned};

/// A run of device-visible memory: what a descriptor of a ring carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Device address of the first byte.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod pages_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
