//! Physical memory: page frames, and the DMA blocks made of them.
//!
//! The program's [`Physical`] heap, seen through the direct map. While the page tables are being built, frames come from the memory map
//! itself.
//!
//! Contexts: all but hard interrupt.

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};

use super::layout::{DIRECT, WINDOW_BYTES};
use crate::dma::{DmaBlock, DmaError, DmaLayout};
use crate::firmware::memory_map::{FRAME, MemoryMap};
use crate::heap::{Physical, Purpose};

static MEMORY: Physical = Physical::new();

/// The frames, for the heap of pages that are mapped one by one.
pub(super) const fn frames() -> &'static Physical {
    &MEMORY
}

/// What to add to a physical address to reach it: zero under the entry's identity map, then [`DIRECT`].
static OFFSET: AtomicU64 = AtomicU64::new(0);

/// Returns where the program sees RAM at physical address `phys`.
pub(super) fn pointer(phys: u64) -> *mut u8 {
    ptr::with_exposed_provenance_mut((OFFSET.load(Ordering::Relaxed) + phys) as usize)
}

/// Begins with all RAM and the part of it that is free. Only memory below 4 GiB can be had until [`ready`].
pub(super) fn init(ram: &MemoryMap, free: &MemoryMap) {
    MEMORY.init(ram, free);
}

/// Whether any byte of a physical range is RAM.
pub(super) fn is_ram(start: u64, bytes: u64) -> bool {
    MEMORY.is_ram(start, bytes)
}

/// From now on frames come from the heaps. The direct map must be in force.
pub(super) fn ready() {
    OFFSET.store(DIRECT, Ordering::Relaxed);
    // SAFETY: the direct map shows all RAM, writable and for ever; the map of what is free leaves out the image, the modules and the frames
    // that were handed out before.
    unsafe { MEMORY.ready(DIRECT, WINDOW_BYTES) };
}

/// Bytes of RAM in the memory map, and bytes in blocks that are free now.
pub(super) fn bytes() -> (u64, u64) {
    MEMORY.bytes()
}

/// Keeps the last `bytes` bytes of page frames for write-back.
pub(super) fn keep_reserve(bytes: u64) {
    MEMORY.keep_reserve(bytes);
}

/// Allocates whole frames, their address a multiple of `align`, their last byte no higher than `max`. The memory is
/// not zeroed. Returns its physical address.
pub(super) fn allocate(bytes: u64, align: u64, max: u64) -> Option<u64> {
    MEMORY.allocate(bytes, align, max, Purpose::Ordinary)
}

/// `Platform::dma_alloc`.
pub(super) fn dma_allocate(layout: DmaLayout) -> Result<DmaBlock, DmaError> {
    let constraints = layout.constraints;
    let checked = DmaLayout::new(layout.len, constraints)?;
    let size = (checked.len as u64).max(FRAME).checked_next_power_of_two().ok_or(DmaError::BadLayout)?;
    // Aligned to its own size, the block meets every boundary that is no smaller; a smaller one is at least as long
    // as what was asked for, which begins at the block's start.
    let align = (constraints.align as u64).max(FRAME);
    let purpose = if crate::heap::reserve_is_open() { Purpose::WriteBack } else { Purpose::Ordinary };
    let addr = MEMORY.allocate(size, align, constraints.max_addr, purpose).ok_or(DmaError::NoMemory)?;
    let virt = NonNull::new(pointer(addr)).ok_or(DmaError::NoMemory)?;
    // SAFETY: the block is RAM in the direct map and was free.
    unsafe { virt.write_bytes(0, size as usize) };
    Ok(DmaBlock { virt, addr, len: size as usize, layout })
}

/// `Platform::dma_free`.
///
/// # Safety
/// As `Platform::dma_free`.
pub(super) unsafe fn dma_free(block: DmaBlock) {
    // SAFETY: by the caller; size and alignment are what `dma_allocate` asked for.
    unsafe { MEMORY.free(block.addr, block.len as u64, (block.layout.constraints.align as u64).max(FRAME)) };
}

/// More memory for the locked heap: at least `bytes`, in whole blocks.
pub(super) fn grow(bytes: usize) -> Option<(NonNull<u8>, usize)> {
    const STEP: u64 = 1 << 20;
    let size = (bytes as u64).max(FRAME).checked_next_power_of_two()?;
    let (phys, size) = match allocate(size.max(STEP), FRAME, u64::MAX) {
        Some(phys) => (phys, size.max(STEP)),
        None => (allocate(size, FRAME, u64::MAX)?, size),
    };
    Some((NonNull::new(pointer(phys))?, size as usize))
}

/// Takes back what [`grow`] gave.
///
/// # Safety
/// The block came from `grow` with this length, and nothing uses it any more.
pub(super) unsafe fn shrink(start: NonNull<u8>, bytes: usize) {
    let phys = start.as_ptr().addr() as u64 - DIRECT;
    // SAFETY: by the caller.
    unsafe { MEMORY.free(phys, bytes as u64, FRAME) };
}
