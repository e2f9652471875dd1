//! [`Ring`]: a virtqueue of either format, as negotiated. Any context, under the owner's lock.

use undercroft_hal::dma::{DmaConstraints, DmaError};

use super::chain::{AddError, Buffer, Chain};
use super::memory::SharedRing;
use super::packed::Packed;
use super::packed_chain::PackedChain;
use super::packed_memory::SharedPacked;
use super::split::{RingError, Split, Used};
#[cfg(test)]
use crate::defect::Defects;
use crate::wire::ring::Layout;

/// What a ring is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Descriptors: a power of two.
    pub size: u16,
    /// Entries of each chain's own table; 0 for none.
    pub table_len: u16,
    /// Each side says where it wants to hear (`EVENT_IDX`).
    pub event_idx: bool,
    /// The packed format (`RING_PACKED`).
    pub packed: bool,
    /// The split format's legacy layout.
    pub legacy: bool,
}

/// A virtqueue over memory that a device sees.
#[derive(Debug)]
pub enum Ring {
    /// Three areas (2.7).
    Split(Split<SharedRing>),
    /// One ring (2.8).
    Packed(Packed<SharedPacked>),
}

/// A chain being written to a [`Ring`].
#[derive(Debug)]
#[must_use = "a chain goes to the device with finish"]
pub enum RingChain<'a> {
    /// Of a split ring.
    Split(Chain<'a, SharedRing>),
    /// Of a packed ring.
    Packed(PackedChain<'a, SharedPacked>),
}

/// Calls the method of whichever it is.
macro_rules! either {
    ($self:expr, $it:ident => $call:expr) => {
        match $self {
            Self::Split($it) => $call,
            Self::Packed($it) => $call,
        }
    };
}

impl Ring {
    /// A ring over memory of its own; `None` for a size that its format does not have.
    ///
    /// # Errors
    /// [`DmaError`].
    pub fn new(shape: Shape, constraints: DmaConstraints) -> Result<Option<Self>, DmaError> {
        let Shape { size, table_len, event_idx, packed, legacy } = shape;
        let layout = if legacy { Layout::legacy(size) } else { Layout::new(size) };
        Ok(if packed {
            Packed::new(SharedPacked::new(size, table_len, constraints)?, size, event_idx).map(Self::Packed)
        } else {
            Split::new(SharedRing::new(size, layout, table_len, constraints)?, size, event_idx).map(Self::Split)
        })
    }

    /// Device addresses of the three parts: descriptors, the driver's and the device's.
    pub const fn addresses(&self) -> [u64; 3] {
        either!(self, ring => ring.memory().addresses())
    }

    /// Descriptors.
    pub const fn size(&self) -> u16 {
        either!(self, ring => ring.size())
    }

    /// Chains that came back in all, wrapping.
    pub const fn returned(&self) -> u32 {
        either!(self, ring => ring.returned())
    }

    /// Whether the device was told of the chain in flight.
    pub fn was_told(&self, head: u16) -> bool {
        either!(self, ring => ring.was_told(head))
    }

    /// Makes the ring as it was at first. The device does not use it: it was reset.
    pub fn restart(&mut self) {
        either!(self, ring => ring.restart());
    }

    /// Begins a chain of exactly `count` buffers.
    ///
    /// # Errors
    /// [`AddError`].
    #[inline]
    pub fn chain(&mut self, count: u16) -> Result<RingChain<'_>, AddError> {
        match self {
            Self::Split(ring) => ring.chain(count).map(RingChain::Split),
            Self::Packed(ring) => ring.chain(count).map(RingChain::Packed),
        }
    }

    /// Whether there is a free name: without it [`Ring::next_head`] means nothing.
    #[inline]
    pub const fn has_room(&self) -> bool {
        either!(self, ring => ring.free()) > 0
    }

    /// The name of the next chain, below the ring's size: for what is to be written where it says, before [`Ring::add`]. If that fails, what
    /// was written there meant nothing: the name is free.
    #[inline]
    pub const fn next_head(&self) -> u16 {
        either!(self, ring => ring.next_head())
    }

    /// Adds a chain of `N` buffers at once; see [`Split::add`].
    ///
    /// # Errors
    /// [`AddError`]; the ring is as it was.
    #[inline(always)]
    pub fn add<const N: usize>(&mut self, buffers: [Buffer; N], extra: u32) -> Result<u16, AddError> {
        match self {
            Self::Split(ring) => ring.add(buffers, extra),
            Self::Packed(ring) => ring.chain(N as u16)?.add(buffers, extra),
        }
    }

    /// Tells the device of the chains added since the last time. `true` if it wants a kick for them.
    #[must_use = "a device that asked for a kick waits for it"]
    #[inline]
    pub fn publish(&mut self) -> bool {
        either!(self, ring => ring.publish())
    }

    /// Takes the next chain that the device returned.
    ///
    /// # Errors
    /// [`RingError`], now and for ever after, when the device broke the contract.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Used>, RingError> {
        either!(self, ring => ring.pop())
    }

    /// Asks for no interrupts while the caller drains.
    #[inline]
    pub fn disable_interrupts(&mut self) {
        either!(self, ring => ring.disable_interrupts());
    }

    /// Asks for an interrupt at the next chain used. `true` if one was used meanwhile: the caller must drain again.
    #[must_use = "a chain used before interrupts were on raises none"]
    #[inline]
    pub fn enable_interrupts(&mut self) -> bool {
        either!(self, ring => ring.enable_interrupts())
    }

    #[cfg(test)]
    pub(crate) const fn set_defects(&mut self, defects: Defects) {
        match self {
            Self::Split(ring) => ring.defects = defects,
            Self::Packed(ring) => ring.set_defects(defects),
        }
    }
}

impl RingChain<'_> {
    /// Names the chain while it is in flight.
    #[inline]
    pub const fn head(&self) -> u16 {
        match self {
            Self::Split(chain) => chain.head(),
            Self::Packed(chain) => chain.head(),
        }
    }

    /// Adds a buffer.
    #[inline]
    pub fn push(&mut self, buffer: Buffer) {
        either!(self, chain => chain.push(buffer));
    }

    /// Allows the device to count `bytes` that it read as if it had written them; see [`Chain::counts_readable`].
    #[inline]
    pub fn counts_readable(&mut self, bytes: u32) {
        either!(self, chain => chain.counts_readable(bytes));
    }

    /// Makes the chain part of the next [`Ring::publish`] and returns its name.
    ///
    /// # Errors
    /// [`AddError::BadChain`] when there are not as many buffers as announced, or in the wrong order; the ring is as it was.
    #[inline]
    pub fn finish(self) -> Result<u16, AddError> {
        either!(self, chain => chain.finish())
    }
}
