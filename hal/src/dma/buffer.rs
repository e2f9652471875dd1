//! [`DmaBuf`]: data that moves between an owner and a device.

use alloc::sync::Arc;
use core::ops::{Deref, DerefMut};
use core::panic::Location;

use super::block::Block;
use super::pages::Attic;
use super::{DmaConstraints, DmaError, Segment};

/// A data buffer, contiguous for the device. Its owner sees bytes; to let a device work on it, the owner moves it into
/// a request and gets it back with the completion. There is no way to keep a reference over that.
#[derive(Debug)]
pub struct DmaBuf {
    block: Block,
}

impl DmaBuf {
    /// Allocates `len` zeroed bytes.
    ///
    /// # Errors
    /// [`DmaError`] when the constraints cannot be met.
    #[track_caller]
    pub fn new(len: usize, constraints: DmaConstraints) -> Result<Self, DmaError> {
        Ok(Self { block: Block::new(len, constraints, Location::caller())? })
    }

    /// A buffer that is a part of [`DmaPages`](super::DmaPages).
    pub(super) const fn lent(block: Block) -> Self {
        Self { block }
    }

    /// Who lent it, if somebody did.
    pub(super) const fn lender(&self) -> Option<&Arc<Attic>> {
        self.block.lender()
    }

    /// What a descriptor carries for the whole buffer.
    pub const fn segment(&self) -> Segment {
        let place = self.block.place();
        Segment { addr: place.addr, len: place.layout.len as u32 }
    }
}

impl Deref for DmaBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the block is valid for its length, initialised (zeroed at allocation), and owned (a part on loan is this buffer's alone): while a device works
        // on it the buffer is inside the driver's slot, which makes no reference.
        unsafe { core::slice::from_raw_parts(self.block.place().virt.as_ptr(), self.block.place().layout.len) }
    }
}

impl DerefMut for DmaBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and exclusively borrowed.
        unsafe { core::slice::from_raw_parts_mut(self.block.place().virt.as_ptr(), self.block.place().layout.len) }
    }
}
