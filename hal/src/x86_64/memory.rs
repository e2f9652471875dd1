//! Physical memory: page frames, and the DMA blocks made of them.
//!
//! Two buddy heaps (`buddy_system_allocator`) over the direct map: memory below 4 GiB, kept for devices with 32
//! address bits, and all above. A block is a power of two bytes and aligned to its size, so that it never crosses
//! a boundary that it could satisfy. The heaps are fed from the memory map as they run dry, the lowest memory first: RAM
//! that nobody needs is never touched, which a hypervisor that provides it page by page repays in boot time.
//! While the page tables are being built, frames come from the memory map itself.
//!
//! Contexts: all but hard interrupt. Rank: [`FRAMES`], inside every other lock but the console's.

use core::alloc::Layout;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};

use buddy_system_allocator::Heap;

use super::layout::{DIRECT, WINDOW_BYTES};
use crate::dma::{DmaBlock, DmaError, DmaLayout};
use crate::firmware::memory_map::{FRAME, MemoryMap, Range};
use crate::sync::{IrqSpinLock, Rank};

/// Rank of the frames' lock: heaps grow under theirs.
pub(super) const FRAMES: Rank = Rank::new(56);
const FOUR_GIB: u64 = 1 << 32;

struct Frames {
    /// All RAM, whoever has it.
    ram: MemoryMap,
    /// What the heaps were not fed with yet.
    rest: MemoryMap,
    low: Heap<36>,
    high: Heap<46>,
}

static MEMORY: IrqSpinLock<Frames> = IrqSpinLock::new(
    FRAMES,
    Frames { ram: MemoryMap::empty(), rest: MemoryMap::empty(), low: Heap::new(), high: Heap::new() },
);

/// What to add to a physical address to reach it: zero under the entry's identity map, then [`DIRECT`].
static OFFSET: AtomicU64 = AtomicU64::new(0);

/// Returns where the program sees RAM at physical address `phys`.
pub(super) fn pointer(phys: u64) -> *mut u8 {
    ptr::with_exposed_provenance_mut((OFFSET.load(Ordering::Relaxed) + phys) as usize)
}

/// Begins with all RAM and the part of it that is free. Only memory below 4 GiB can be had until [`ready`].
pub(super) fn init(ram: &MemoryMap, free: &MemoryMap) {
    let mut memory = MEMORY.lock();
    memory.ram = ram.clone();
    memory.rest = free.clone();
}

/// Whether any byte of a physical range is RAM.
pub(super) fn is_ram(start: u64, bytes: u64) -> bool {
    let end = start.saturating_add(bytes);
    MEMORY.lock().ram.iter().any(|range| range.start < end && start < range.end)
}

/// From now on frames come from the heaps. The direct map must be in force.
pub(super) fn ready() {
    OFFSET.store(DIRECT, Ordering::Relaxed);
}

/// Bytes of RAM in the memory map, and bytes in blocks that are free now.
pub fn bytes() -> (u64, u64) {
    let memory = MEMORY.lock();
    let free = |total: usize, used: usize| (total - used) as u64;
    let heaps = free(memory.low.stats_total_bytes(), memory.low.stats_alloc_actual())
        + free(memory.high.stats_total_bytes(), memory.high.stats_alloc_actual());
    (memory.ram.bytes(), heaps + memory.rest.bytes())
}

/// Allocates whole frames, their address a multiple of `align`, their last byte no higher than `max`. The memory is
/// not zeroed. Returns its physical address.
pub(super) fn allocate(bytes: u64, align: u64, max: u64) -> Option<u64> {
    let mut memory = MEMORY.lock();
    if OFFSET.load(Ordering::Relaxed) == 0 {
        return memory.take_early(bytes, align);
    }
    let layout = block(bytes, align)?;
    if max >= FOUR_GIB
        && let Some(phys) = memory.take(Zone::High, layout, max)
    {
        return Some(phys);
    }
    memory.take(Zone::Low, layout, max)
}

/// The block that serves a request.
fn block(bytes: u64, align: u64) -> Option<Layout> {
    let size = usize::try_from(bytes.max(FRAME).checked_next_power_of_two()?).ok()?;
    Layout::from_size_align(size, usize::try_from(align.max(FRAME)).ok()?).ok()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Zone {
    /// Below 4 GiB.
    Low,
    /// The rest.
    High,
}

impl Zone {
    fn of(self, range: Range) -> Range {
        match self {
            Self::Low => Range { start: range.start, end: range.end.min(FOUR_GIB) },
            Self::High => Range { start: range.start.max(FOUR_GIB), end: range.end.min(WINDOW_BYTES) },
        }
    }
}

impl Frames {
    fn take_early(&mut self, bytes: u64, align: u64) -> Option<u64> {
        let found = self.find(Zone::Low, bytes, align)?;
        self.rest.remove(Range { start: found, end: found + bytes });
        Some(found)
    }

    /// The lowest place in the rest of the map.
    fn find(&self, zone: Zone, bytes: u64, align: u64) -> Option<u64> {
        self.rest.iter().find_map(|range| {
            let range = zone.of(range);
            let start = range.start.checked_next_multiple_of(align)?;
            (start.checked_add(bytes)? <= range.end).then_some(start)
        })
    }

    fn take(&mut self, zone: Zone, layout: Layout, max: u64) -> Option<u64> {
        let start = match self.alloc(zone, layout) {
            Some(start) => start,
            None => {
                self.feed(zone, layout);
                self.alloc(zone, layout)?
            }
        };
        let phys = start.as_ptr().expose_provenance() as u64 - DIRECT;
        if phys + layout.size() as u64 - 1 > max {
            // SAFETY: it was allocated just now with this layout.
            unsafe { self.dealloc(start, layout) };
            return None;
        }
        Some(phys)
    }

    /// Feeds a heap with what `layout` needs: a large page's worth at least, or, where the map has no such piece any
    /// more, with all that is left.
    fn feed(&mut self, zone: Zone, layout: Layout) {
        const LEAST: u64 = 2 << 20;
        let bytes = (layout.size().max(layout.align()) as u64).max(LEAST);
        if let Some(start) = self.find(zone, bytes, bytes) {
            self.give(zone, Range { start, end: start + bytes });
            return;
        }
        for range in self.rest.clone().iter().map(|range| zone.of(range)).filter(|range| !range.is_empty()) {
            self.give(zone, range);
        }
    }

    fn give(&mut self, zone: Zone, range: Range) {
        self.rest.remove(range);
        let (start, end) = ((DIRECT + range.start) as usize, (DIRECT + range.end) as usize);
        // SAFETY: the range is RAM by the memory map, without the image, the modules and the frames that were handed
        // out before; it is mapped writable in the direct map, and having left `rest` it is known to nobody else.
        unsafe {
            match zone {
                Zone::Low => self.low.add_to_heap(start, end),
                Zone::High => self.high.add_to_heap(start, end),
            }
        }
    }

    fn alloc(&mut self, zone: Zone, layout: Layout) -> Option<NonNull<u8>> {
        match zone {
            Zone::Low => self.low.alloc(layout).ok(),
            Zone::High => self.high.alloc(layout).ok(),
        }
    }

    /// # Safety
    /// The block came from `alloc` with this layout, is freed once, and nothing uses it any more.
    unsafe fn dealloc(&mut self, start: NonNull<u8>, layout: Layout) {
        let low = (start.as_ptr().addr() as u64) < DIRECT + FOUR_GIB;
        // SAFETY: by the caller; the address tells the zone.
        unsafe { if low { self.low.dealloc(start, layout) } else { self.high.dealloc(start, layout) } }
    }
}

/// Frees what [`allocate`] gave after [`ready`].
///
/// # Safety
/// The block came from `allocate` with this size and alignment, is freed once, and nothing uses it any more.
unsafe fn free(phys: u64, bytes: u64, align: u64) {
    let (Some(layout), Some(start)) = (block(bytes, align), NonNull::new(pointer(phys))) else { return };
    let mut memory = MEMORY.lock();
    // SAFETY: by the caller, the block came from this heap with this layout.
    unsafe { if phys < FOUR_GIB { memory.low.dealloc(start, layout) } else { memory.high.dealloc(start, layout) } }
}

/// `Platform::dma_alloc`.
pub(super) fn dma_allocate(layout: DmaLayout) -> Result<DmaBlock, DmaError> {
    let constraints = layout.constraints;
    let checked = DmaLayout::new(layout.len, constraints)?;
    let size = (checked.len as u64).max(FRAME).checked_next_power_of_two().ok_or(DmaError::BadLayout)?;
    // Aligned to its own size, the block meets every boundary that is no smaller; a smaller one is at least as long
    // as what was asked for, which begins at the block's start.
    let align = (constraints.align as u64).max(FRAME);
    let addr = allocate(size, align, constraints.max_addr).ok_or(DmaError::NoMemory)?;
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
    unsafe { free(block.addr, block.len as u64, (block.layout.constraints.align as u64).max(FRAME)) };
}

/// More memory for the general heap: at least `bytes`, in whole blocks. It is never given back.
pub(super) fn grow(bytes: usize) -> Option<(NonNull<u8>, usize)> {
    const STEP: u64 = 1 << 20;
    let size = (bytes as u64).max(FRAME).checked_next_power_of_two()?;
    let (phys, size) = match allocate(size.max(STEP), FRAME, u64::MAX) {
        Some(phys) => (phys, size.max(STEP)),
        None => (allocate(size, FRAME, u64::MAX)?, size),
    };
    Some((NonNull::new(pointer(phys))?, size as usize))
}
