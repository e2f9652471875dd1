//! The backed heap: pages, mapped at addresses of their own. Bottom half and task.
//!
//! Addresses come from the virtual heap and frames from the physical one; they need not be contiguous. Freeing unmaps first and gives the
//! frames back afterwards: never can a stale mapping show a frame that is somebody else's.

use core::fmt;

use super::{Addresses, Physical, Purpose, Virtual};
use crate::context::NotHardIrq;
use crate::firmware::memory_map::FRAME;

/// The page tables, as this heap needs them.
///
/// # Safety
/// After `map` the page shows its frame, writable and not executable; after `unmap` no CPU can reach the frame by the address.
pub unsafe trait Mapper {
    /// Maps the page at `address` to the frame at `phys`. `false`: there is no memory for a table, and nothing was mapped.
    fn map(&self, address: u64, phys: u64) -> bool;
    /// Unmaps the page at `address` on all CPUs: which frame it showed.
    ///
    /// # Safety
    /// Nothing uses the page any more.
    unsafe fn unmap(&self, address: u64) -> Option<u64>;
}

/// A page that should have been mapped was not: the tables were changed behind this heap's back. Its addresses stay out of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unmapped {
    /// The page.
    pub address: u64,
}

/// See the module.
pub struct Backed<'a, M> {
    addresses: &'a Virtual,
    frames: &'a Physical,
    mapper: M,
}

impl<M> fmt::Debug for Backed<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backed").finish_non_exhaustive()
    }
}

impl<'a, M: Mapper> Backed<'a, M> {
    /// A heap over these two.
    pub const fn new(addresses: &'a Virtual, frames: &'a Physical, mapper: M) -> Self {
        Self { addresses, frames, mapper }
    }

    /// Allocates pages for `bytes` bytes. Their content is what the frames had.
    pub fn allocate(&self, cx: &impl NotHardIrq, bytes: u64, purpose: Purpose) -> Option<Addresses> {
        let bytes = bytes.checked_next_multiple_of(FRAME)?;
        let addresses = self.addresses.allocate(cx, bytes, FRAME)?;
        for done in (0..bytes).step_by(FRAME as usize) {
            if !self.back(addresses.start() + done, purpose) {
                // SAFETY: the pages were mapped just now, and nobody knows of them.
                let undone = unsafe { self.release(addresses.start(), done) };
                if undone.is_ok() {
                    self.addresses.free(cx, addresses);
                }
                return None;
            }
        }
        Some(addresses)
    }

    fn back(&self, address: u64, purpose: Purpose) -> bool {
        if super::strikes() {
            return false;
        }
        let Some(phys) = self.frames.allocate(FRAME, FRAME, u64::MAX, purpose) else { return false };
        if !self.mapper.map(address, phys) {
            // SAFETY: allocated just now, mapped nowhere.
            unsafe { self.frames.free(phys, FRAME, FRAME) };
            return false;
        }
        true
    }

    /// Unmaps and frees what [`Backed::allocate`] gave.
    ///
    /// # Errors
    /// [`Unmapped`].
    ///
    /// # Safety
    /// Nothing uses the memory any more.
    pub unsafe fn free(&self, cx: &impl NotHardIrq, addresses: Addresses) -> Result<(), Unmapped> {
        // SAFETY: by the caller.
        unsafe { self.release(addresses.start(), addresses.bytes()) }?;
        self.addresses.free(cx, addresses);
        Ok(())
    }

    /// # Safety
    /// The pages are this heap's, and nothing uses them any more.
    unsafe fn release(&self, start: u64, bytes: u64) -> Result<(), Unmapped> {
        for address in (start..start + bytes).step_by(FRAME as usize) {
            // SAFETY: by the caller.
            let phys = unsafe { self.mapper.unmap(address) }.ok_or(Unmapped { address })?;
            // SAFETY: `back` allocated it, no CPU can reach it any more, and having been unmapped it is freed once.
            unsafe { self.frames.free(phys, FRAME, FRAME) };
        }
        Ok(())
    }
}
