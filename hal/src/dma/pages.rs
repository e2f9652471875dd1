//! [`DmaPages`]: memory of several pages, some of which a device has.
//!
//! For a cache that has data read straight into its pages. Its owner sees the pages that it has; a run of pages that is lent is a [`DmaBuf`] like any
//! other, which goes into a request and comes back with it, and until then its bytes are out of the owner's sight. A request that never comes back keeps
//! its pages: nobody is given them again, and they are freed when their owner, all other owners of the same [`Lender`] and whoever has such a run are
//! gone. So a device that is not done with memory never has it freed under it.
//!
//! Allocation in task context or bottom half; lending and taking back anywhere but in a hard interrupt, allocating nothing.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::panic::Location;
use core::ptr::NonNull;

use super::block::Block;
use super::{DmaBlock, DmaBuf, DmaConstraints, DmaError, DmaLayout, Segment};
use crate::broken::{self, Hazard};
use crate::sync::{IrqSpinLock, Rank};

/// Bytes of a page.
const PAGE: usize = 4096;

/// Where memory goes whose owner went before all of it was back.
#[derive(Debug)]
pub(super) struct Attic(IrqSpinLock<Vec<Block>>);

/// Who lends: made once, for all memory that goes to the same devices.
#[derive(Debug, Clone)]
pub struct Lender(Arc<Attic>);

impl Lender {
    /// For up to `most` [`DmaPages`] at a time.
    ///
    /// # Errors
    /// [`DmaError::NoMemory`].
    pub fn new(most: usize) -> Result<Self, DmaError> {
        let mut blocks = Vec::new();
        blocks.try_reserve_exact(most).map_err(|_| DmaError::NoMemory)?;
        Ok(Self(Arc::new(Attic(IrqSpinLock::new(Rank::new(51), blocks)))))
    }
}

/// See the module.
pub struct DmaPages {
    virt: NonNull<u8>,
    pages: u32,
    /// A bit for each page that is lent.
    lent: u128,
    /// Taken out by the drop only.
    block: Option<Block>,
    lender: Arc<Attic>,
}

// SAFETY: the memory is owned by this value, but for what is lent, of which it makes no references.
unsafe impl Send for DmaPages {}
// SAFETY: a shared reference gives shared bytes only; lending takes an exclusive one.
unsafe impl Sync for DmaPages {}

impl DmaPages {
    /// Pages at most.
    pub const MOST: usize = u128::BITS as usize;

    /// Allocates `pages` pages of zeroes, one behind the other.
    ///
    /// # Errors
    /// [`DmaError`] when the constraints cannot be met; [`DmaError::BadLayout`] for more than [`DmaPages::MOST`].
    #[track_caller]
    pub fn new(lender: &Lender, pages: usize, constraints: DmaConstraints) -> Result<Self, DmaError> {
        if pages > Self::MOST {
            return Err(DmaError::BadLayout);
        }
        let align = constraints.align.max(PAGE);
        let block = Block::new(pages * PAGE, DmaConstraints { align, ..constraints }, Location::caller())?;
        let (virt, lender) = (block.place().virt, Arc::clone(&lender.0));
        Ok(Self { virt, pages: pages as u32, lent: 0, block: Some(block), lender })
    }

    /// How many pages there are.
    pub const fn len(&self) -> usize {
        self.pages as usize
    }

    /// Whether there are none (there are always some).
    pub const fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// Where a page is.
    pub fn segment(&self, page: usize) -> Segment {
        let addr = self.block.as_ref().map_or(0, |block| block.place().addr);
        Segment { addr: addr + (page * PAGE) as u64, len: PAGE as u32 }
    }

    /// Where the first page is, for the processor: to be fetched, say.
    pub fn virt(&self) -> usize {
        self.virt.addr().get()
    }

    /// Whether a page is lent.
    #[inline]
    pub const fn is_lent(&self, page: usize) -> bool {
        page < Self::MOST && self.lent & 1 << page != 0
    }

    /// A page's bytes. `None` if it is lent, or not there.
    #[inline]
    pub fn bytes(&self, page: usize) -> Option<&[u8]> {
        if page >= self.pages as usize || self.is_lent(page) {
            return None;
        }
        // SAFETY: 1. within the block, which is initialised (zeroed at allocation) and lives as long as this; 2. what is lent is exclusively the
        // borrower's, what is not is this value's, shared as it is borrowed here: `lend` takes it exclusively.
        Some(unsafe { core::slice::from_raw_parts(self.virt.as_ptr().wrapping_add(page * PAGE), PAGE) })
    }

    /// A page's bytes, to change. `None` if it is lent, or not there.
    #[inline]
    pub fn bytes_mut(&mut self, page: usize) -> Option<&mut [u8]> {
        if page >= self.pages as usize || self.is_lent(page) {
            return None;
        }
        // SAFETY: as in `bytes`, and exclusively borrowed.
        Some(unsafe { core::slice::from_raw_parts_mut(self.virt.as_ptr().wrapping_add(page * PAGE), PAGE) })
    }

    /// The bits of a run of pages, if they are all there.
    fn bits(&self, pages: &Range<usize>) -> Option<u128> {
        let there = pages.start < pages.end && pages.end <= self.pages as usize;
        there.then(|| (u128::MAX >> (Self::MOST - (pages.end - pages.start))) << pages.start)
    }

    /// Lends a run of pages: from here on they are the buffer's. `None` if one of them is lent already, or not there.
    pub fn lend(&mut self, pages: Range<usize>) -> Option<DmaBuf> {
        let bits = self.bits(&pages)?;
        if self.lent & bits != 0 && !broken::is(Hazard::LentTwice) {
            return None;
        }
        let whole = *self.block.as_ref()?.place();
        let (start, len) = (pages.start * PAGE, (pages.end - pages.start) * PAGE);
        let virt = NonNull::new(self.virt.as_ptr().wrapping_add(start))?;
        let layout = DmaLayout { len, ..whole.layout };
        let part = DmaBlock { virt, addr: whole.addr + start as u64, len, layout };
        self.lent |= bits;
        Some(DmaBuf::lent(Block::part(part, Arc::clone(&self.lender))))
    }

    /// Takes a run back that was [lent](DmaPages::lend).
    ///
    /// # Errors
    /// The buffer, if it is not of these pages.
    pub fn take_back(&mut self, buf: DmaBuf) -> Result<(), DmaBuf> {
        let ours = buf.lender().is_some_and(|lender| Arc::ptr_eq(lender, &self.lender));
        let at = buf.as_ptr().addr().wrapping_sub(self.virt.addr().get());
        let first = at / PAGE;
        let bits = self.bits(&(first..first.saturating_add(buf.len() / PAGE)));
        // Memory with this address is this, as long as this lives; and what is lent of it is lent once.
        let Some(bits) = bits.filter(|_| ours) else { return Err(buf) };
        self.lent &= !bits;
        Ok(())
    }
}

impl Drop for DmaPages {
    fn drop(&mut self) {
        if self.lent == 0 || broken::is(Hazard::FreedWhileLent) {
            return;
        }
        let Some(block) = self.block.take() else { return };
        let mut attic = self.lender.0.lock();
        if attic.len() < attic.capacity() {
            attic.push(block);
        } else {
            // More than were to be: it stays allocated.
            core::mem::forget(block);
        }
    }
}

impl fmt::Debug for DmaPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaPages({} at {:#x}, lent {:#x})", self.pages, self.segment(0).addr, self.lent)
    }
}
