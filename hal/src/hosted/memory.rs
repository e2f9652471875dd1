//! Guest RAM of a simulated machine.
//!
//! The guest's side gets blocks from [`Ram::alloc`]; the devices' side reads and writes by physical address,
//! and only within RAM: a device model that follows a wrong descriptor gets an error, not somebody's memory. A ledger of allocated blocks
//! tells whether a device touched memory that no driver holds for DMA.
//!
//! UNSAFETY: one allocation seen by guest pointers and device accesses.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use std::alloc::{alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::dma::{DmaBlock, DmaError, DmaLayout};

const PAGE: usize = 4096;

/// A device's access to memory that it must not touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadAccess {
    /// Device address.
    pub addr: u64,
    /// Bytes.
    pub len: usize,
}

/// The RAM of one machine, at physical addresses from `base`.
#[derive(Debug)]
pub struct Ram {
    base: u64,
    len: usize,
    memory: NonNull<u8>,
    /// Allocated blocks: start offset to length.
    live: Mutex<BTreeMap<usize, usize>>,
}

// SAFETY: the memory is reached by device accesses, which are volatile copies, and by the guest through the blocks that it holds; CPUs that
// are threads have no devices but those that their test plays, in turn with them.
unsafe impl Send for Ram {}
// SAFETY: as above; the ledger has a lock.
unsafe impl Sync for Ram {}

impl Ram {
    /// `len` bytes of zeroed RAM (rounded up to pages) at physical address `base`.
    pub fn new(base: u64, len: usize) -> Self {
        let len = len.next_multiple_of(PAGE).max(PAGE);
        let layout = Self::layout(len);
        // SAFETY: the size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        Self { base, len, memory, live: Mutex::new(BTreeMap::new()) }
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<usize, usize>> {
        // A test that panicked leaves the ledger as it was.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, PAGE).expect("RAM fits the address space")
    }

    /// Allocates a zeroed block that meets the constraints: first fit.
    ///
    /// # Errors
    /// [`DmaError::NoMemory`].
    pub fn alloc(&self, layout: DmaLayout) -> Result<DmaBlock, DmaError> {
        self.alloc_from(layout, self.base)
    }

    /// Allocates as [`Ram::alloc`] does, nothing below the address `first`.
    ///
    /// # Errors
    /// [`DmaError::NoMemory`].
    pub fn alloc_from(&self, layout: DmaLayout, first: u64) -> Result<DmaBlock, DmaError> {
        let mut live = self.live();
        let DmaLayout { len, constraints } = layout;
        let align = constraints.align.max(16) as u64;
        let skip = first.saturating_sub(self.base).min(self.len as u64) as usize;
        let mut at = skip;
        let mut holes = live.iter().map(|(&start, &len)| (start, start + len)).collect::<Vec<_>>();
        holes.push((self.len, self.len));
        for (start, end) in holes {
            let mut phys = (self.base + at as u64).next_multiple_of(align);
            if constraints.boundary != 0
                && phys / constraints.boundary != (phys + len as u64 - 1) / constraints.boundary
            {
                phys = phys.next_multiple_of(constraints.boundary).next_multiple_of(align);
            }
            let offset = (phys - self.base) as usize;
            let last = phys + len as u64 - 1;
            if offset.checked_add(len).is_some_and(|stop| stop <= start) && last <= constraints.max_addr {
                live.insert(offset, len);
                // SAFETY: offset + len lies within the allocation, and within no live block.
                let virt = unsafe { self.memory.add(offset) };
                // SAFETY: as above; no reference into a free hole exists.
                unsafe { virt.write_bytes(0, len) };
                return Ok(DmaBlock { virt, addr: phys, len, layout });
            }
            at = end.max(skip);
        }
        Err(DmaError::NoMemory)
    }

    /// Frees a block.
    ///
    /// # Panics
    /// If the block is not live: a double free in the driver.
    pub fn free(&self, block: DmaBlock) {
        let offset = (block.addr - self.base) as usize;
        let known = self.live().remove(&offset);
        assert_eq!(known, Some(block.layout.len), "freed DMA memory at {:#x} that was not allocated", block.addr);
        // What the device still does here would be a use after free: make it visible.
        // SAFETY: within RAM, and nobody's any more.
        unsafe { block.virt.write_bytes(0xdd, block.layout.len) };
    }

    /// How many DMA blocks the guest holds: the ledger must be empty when its drivers are gone.
    pub fn live_blocks(&self) -> usize {
        self.live().len()
    }

    fn device_range(&self, addr: u64, len: usize) -> Result<NonNull<u8>, BadAccess> {
        let bad = BadAccess { addr, len };
        let offset = usize::try_from(addr.checked_sub(self.base).ok_or(bad)?).map_err(|_| bad)?;
        let end = offset.checked_add(len).ok_or(bad)?;
        let live = self.live();
        let (&start, &block) = live.range(..=offset).next_back().ok_or(bad)?;
        if end > start + block {
            return Err(bad);
        }
        // SAFETY: within a live block, so within RAM.
        Ok(unsafe { self.memory.add(offset) })
    }

    /// A device reads memory.
    ///
    /// # Errors
    /// [`BadAccess`] when the range is not wholly inside one block that the guest holds for DMA.
    pub fn read(&self, addr: u64, into: &mut [u8]) -> Result<(), BadAccess> {
        let from = self.device_range(addr, into.len())?;
        for (at, byte) in into.iter_mut().enumerate() {
            // SAFETY: in range. The guest may hold a plain reference to bytes that it lets the device read (never ones it lets the
            // device write), and a single thread runs both sides.
            *byte = unsafe { from.add(at).read_volatile() };
        }
        Ok(())
    }

    /// A device writes memory.
    ///
    /// # Errors
    /// [`BadAccess`], with nothing written.
    pub fn write(&self, addr: u64, bytes: &[u8]) -> Result<(), BadAccess> {
        let to = self.device_range(addr, bytes.len())?;
        for (at, byte) in bytes.iter().enumerate() {
            // SAFETY: in range; the guest holds no reference into memory that a device may write (`DmaBuf` and `Coherent`).
            unsafe { to.add(at).write_volatile(*byte) };
        }
        Ok(())
    }

    /// A device reads an index that the guest publishes (acquire).
    ///
    /// # Errors
    /// [`BadAccess`].
    pub fn read_u16(&self, addr: u64) -> Result<u16, BadAccess> {
        let mut bytes = [0; 2];
        self.read(addr, &mut bytes)?;
        core::sync::atomic::fence(Ordering::Acquire);
        Ok(u16::from_le_bytes(bytes))
    }

    /// A device publishes an index (release).
    ///
    /// # Errors
    /// [`BadAccess`].
    pub fn write_u16(&self, addr: u64, value: u16) -> Result<(), BadAccess> {
        core::sync::atomic::fence(Ordering::Release);
        self.write(addr, &value.to_le_bytes())
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.len)) }
    }
}
