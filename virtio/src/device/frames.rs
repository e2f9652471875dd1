//! [`Frames`]: shared memory beside the ring, a fixed piece for each chain, for headers and answers. Any context.

use undercroft_hal::dma::{Coherent, DmaConstraints, DmaError};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A fixed piece of shared memory for each chain that a queue can have in flight.
#[derive(Debug)]
pub(crate) struct Frames {
    block: Coherent,
    shift: u32,
}

impl Frames {
    /// `count` frames of `bytes` (a power of two).
    pub(crate) fn new(count: u16, bytes: usize, constraints: DmaConstraints) -> Result<Self, DmaError> {
        let shift = bytes.ilog2();
        Ok(Self { block: Coherent::new(usize::from(count) << shift, constraints)?, shift })
    }

    #[inline]
    const fn at(&self, head: u16, offset: usize) -> usize {
        ((head as usize) << self.shift) + offset
    }

    /// Device address of a byte of chain `head`'s frame.
    #[inline]
    pub(crate) const fn addr(&self, head: u16, offset: usize) -> u64 {
        self.block.addr(self.at(head, offset))
    }

    /// Copies a value in.
    #[inline]
    pub(crate) fn write<T: IntoBytes + Immutable>(&self, head: u16, offset: usize, value: T) {
        self.block.write(self.at(head, offset), value);
    }

    /// Copies a value out.
    #[inline]
    pub(crate) fn read<T: FromBytes>(&self, head: u16, offset: usize) -> T {
        self.block.read(self.at(head, offset))
    }
}
