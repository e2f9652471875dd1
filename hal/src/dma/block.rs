//! An allocated block and its one owner.

use alloc::sync::Arc;
use core::panic::Location;

use super::pages::Attic;
use super::{DmaBlock, DmaConstraints, DmaError, DmaLayout};
use crate::broken::{self, Hazard};
use crate::heap::{self, Mark};
use crate::platform::seam;

/// Owns a block; dropping it frees the block. Or has a part of one on loan, which is not freed with it.
#[derive(Debug)]
pub(super) struct Block {
    block: DmaBlock,
    mark: Mark,
    /// Of a part: what keeps the memory that it is of.
    lender: Option<Arc<Attic>>,
}

// SAFETY: the block is owned by this value, which gives no access to it; whoever makes references into it, or reads and writes it by volatile or
// atomic accesses as `Coherent` does, answers for that.
unsafe impl Send for Block {}
// SAFETY: as for Send: a shared reference gives the block's place.
unsafe impl Sync for Block {}

impl Block {
    /// Allocates `len` zeroed bytes on behalf of the code at `site`.
    pub(super) fn new(
        len: usize,
        constraints: DmaConstraints,
        site: &'static Location<'static>,
    ) -> Result<Self, DmaError> {
        let layout = DmaLayout::new(len, constraints)?;
        if heap::strikes() {
            return Err(DmaError::NoMemory);
        }
        let block = super::allocate(layout)?;
        Ok(Self { block, mark: heap::allocated(site, len), lender: None })
    }

    /// A part of a block that `lender` keeps, on loan.
    pub(super) const fn part(block: DmaBlock, lender: Arc<Attic>) -> Self {
        Self { block, mark: Mark::NONE, lender: Some(lender) }
    }

    /// What keeps the memory, if this is on loan.
    pub(super) const fn lender(&self) -> Option<&Arc<Attic>> {
        self.lender.as_ref()
    }

    /// Where it lies.
    pub(super) const fn place(&self) -> &DmaBlock {
        &self.block
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.lender.is_some() {
            return;
        }
        if broken::is(Hazard::FreedLonger) {
            self.block.layout.len = self.block.layout.len.next_multiple_of(4096);
        }
        super::freeing(&self.block);
        heap::freed(self.mark, self.block.layout.len);
        // SAFETY: from dma_alloc, freed once. That no device uses it any more is the driver's duty: a ring is kept until the device was
        // reset, and a slot owns a request's buffers until the device gave them back or was reset (each driver's drop order is tested with
        // the ledger); what a `Given` holds is never dropped.
        unsafe { seam::dma_free(self.block) }
    }
}
