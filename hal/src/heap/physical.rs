//! The physical heap: page frames.
//!
//! Two buddy heaps (`buddy_system_allocator`): memory below 4 GiB, kept for devices with 32 address bits, and all above. A block is a
//! power of two bytes and aligned to its size, so that it never crosses a boundary that it could satisfy. The heaps are fed from the
//! memory map as they run dry, the lowest memory first: RAM that nobody needs is never touched, which a hypervisor that provides it page
//! by page repays in boot time. Until [`Physical::ready`] frames come from the memory map itself.
//!
//! The last frames are kept for write-back: ordinary requests fail while less than the reserve would be left.
//!
//! Contexts: bottom half and task. Rank: [`FRAMES`], inside every other lock but the console's.
//!
//! UNSAFETY: hands the buddy heaps memory, whose free blocks they link through themselves.

use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

use arrayvec::ArrayVec;
use buddy_system_allocator::Heap;

use crate::firmware::memory_map::{FRAME, MemoryMap, Range};
use crate::sync::{IrqSpinLock, Rank};

/// Rank of the frames' lock: heaps grow under theirs.
const FRAMES: Rank = Rank::new(56);
const FOUR_GIB: u64 = 1 << 32;
/// Blocks that are looked at for one whose address is low enough.
const ASIDE: usize = 128;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Anybody: fails while the reserve would be touched.
    Ordinary,
    /// Write-back, which frees memory in the end.
    WriteBack,
}

struct Frames {
    /// All RAM, whoever has it.
    ram: MemoryMap,
    /// What the heaps were not fed with yet.
    rest: MemoryMap,
    low: Heap<36>,
    high: Heap<46>,
    /// Where the program sees physical address 0, and how much it sees; `None` before all of it is.
    window: Option<(u64, u64)>,
    /// Bytes that ordinary requests leave alone.
    reserve: u64,
}

/// See the module.
pub struct Physical(IrqSpinLock<Frames>);

impl fmt::Debug for Physical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Physical").finish_non_exhaustive()
    }
}

impl Default for Physical {
    fn default() -> Self {
        Self::new()
    }
}

impl Physical {
    /// A heap without memory.
    pub const fn new() -> Self {
        Self(IrqSpinLock::new(
            FRAMES,
            Frames {
                ram: MemoryMap::empty(),
                rest: MemoryMap::empty(),
                low: Heap::new(),
                high: Heap::new(),
                window: None,
                reserve: 0,
            },
        ))
    }

    /// Begins with all RAM and the part of it that is free. Only memory below 4 GiB can be had until [`Physical::ready`].
    pub fn init(&self, ram: &MemoryMap, free: &MemoryMap) {
        let mut frames = self.0.lock();
        frames.ram = ram.clone();
        frames.rest = free.clone();
    }

    /// From now on frames come from the heaps. The program sees physical address `p` at `offset + p`, for `p` below `bytes`.
    ///
    /// # Safety
    /// It does, readable and writable for ever, for all memory that is free by the map given to [`Physical::init`], which is nobody else's.
    pub unsafe fn ready(&self, offset: u64, bytes: u64) {
        self.0.lock().window = Some((offset, bytes));
    }

    /// Keeps the last `bytes` bytes for [`Purpose::WriteBack`].
    pub fn keep_reserve(&self, bytes: u64) {
        self.0.lock().reserve = bytes;
    }

    /// Whether any byte of a physical range is RAM.
    pub fn is_ram(&self, start: u64, bytes: u64) -> bool {
        let end = start.saturating_add(bytes);
        self.0.lock().ram.iter().any(|range| range.start < end && start < range.end)
    }

    /// Bytes of RAM in the memory map, and bytes in frames that are free now.
    pub fn bytes(&self) -> (u64, u64) {
        let frames = self.0.lock();
        (frames.ram.bytes(), frames.free_bytes())
    }

    /// Allocates whole frames, their address a multiple of `align`, their last byte no higher than `max`. The memory is
    /// not zeroed. Returns its physical address.
    pub fn allocate(&self, bytes: u64, align: u64, max: u64, purpose: Purpose) -> Option<u64> {
        let mut frames = self.0.lock();
        if frames.window.is_none() {
            return frames.take_early(bytes, align);
        }
        let layout = block(bytes, align)?;
        if purpose == Purpose::Ordinary && frames.reserve > 0 {
            frames.free_bytes().checked_sub(layout.size() as u64).filter(|&left| left >= frames.reserve)?;
        }
        if max >= FOUR_GIB
            && let Some(phys) = frames.take(Zone::High, layout, max)
        {
            return Some(phys);
        }
        frames.take(Zone::Low, layout, max)
    }

    /// Frees what [`Physical::allocate`] gave after [`Physical::ready`].
    ///
    /// # Safety
    /// The block came from `allocate` with this size and alignment, is freed once, and nothing uses it any more.
    pub unsafe fn free(&self, phys: u64, bytes: u64, align: u64) {
        let mut frames = self.0.lock();
        let Some((offset, _)) = frames.window else { return };
        let (Some(layout), Some(start)) = (block(bytes, align), NonNull::new(pointer(offset, phys))) else { return };
        // SAFETY: by the caller, the block came from this heap with this layout.
        unsafe { if phys < FOUR_GIB { frames.low.dealloc(start, layout) } else { frames.high.dealloc(start, layout) } }
    }
}

fn pointer(offset: u64, phys: u64) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut((offset + phys) as usize)
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

impl Frames {
    fn take_early(&mut self, bytes: u64, align: u64) -> Option<u64> {
        let found = self.find(Zone::Low, bytes, align)?;
        self.rest.remove(Range { start: found, end: found + bytes });
        Some(found)
    }

    fn free_bytes(&self) -> u64 {
        let free = |total: usize, used: usize| (total - used) as u64;
        free(self.low.stats_total_bytes(), self.low.stats_alloc_actual())
            + free(self.high.stats_total_bytes(), self.high.stats_alloc_actual())
            + self.rest.bytes()
    }

    /// The part of a range that lies in a zone and can be seen.
    fn within(&self, zone: Zone, range: Range) -> Range {
        let seen = self.window.map_or(u64::MAX, |(_, bytes)| bytes);
        match zone {
            Zone::Low => Range { start: range.start, end: range.end.min(FOUR_GIB).min(seen) },
            Zone::High => Range { start: range.start.max(FOUR_GIB), end: range.end.min(seen) },
        }
    }

    /// The lowest place in the rest of the map.
    fn find(&self, zone: Zone, bytes: u64, align: u64) -> Option<u64> {
        self.rest.iter().find_map(|range| {
            let range = self.within(zone, range);
            let start = range.start.checked_next_multiple_of(align)?;
            (start.checked_add(bytes)? <= range.end).then_some(start)
        })
    }

    fn take(&mut self, zone: Zone, layout: Layout, max: u64) -> Option<u64> {
        let (offset, _) = self.window?;
        let highest =
            |start: NonNull<u8>| (start.as_ptr().expose_provenance() as u64 - offset) + layout.size() as u64 - 1;
        // A buddy heap gives any block of the size. Those that lie too high are set aside until one fits, and given back.
        let mut aside = ArrayVec::<NonNull<u8>, ASIDE>::new();
        let mut found = None;
        while found.is_none() && !aside.is_full() {
            let Some(start) = self.alloc(zone, layout).or_else(|| {
                self.feed(zone, layout);
                self.alloc(zone, layout)
            }) else {
                break;
            };
            if highest(start) <= max {
                found = Some(start);
            } else {
                aside.push(start);
                if aside.len() == 1 {
                    // The map's lowest memory may be untouched yet.
                    self.feed(zone, layout);
                }
            }
        }
        for start in aside {
            // SAFETY: it was allocated just now with this layout.
            unsafe { self.dealloc(zone, start, layout) };
        }
        found.map(|start| start.as_ptr().expose_provenance() as u64 - offset)
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
        for range in self.rest.clone().iter() {
            let range = self.within(zone, range);
            if !range.is_empty() {
                self.give(zone, range);
            }
        }
    }

    fn give(&mut self, zone: Zone, range: Range) {
        let Some((offset, _)) = self.window else { return };
        self.rest.remove(range);
        let (start, end) = ((offset + range.start) as usize, (offset + range.end) as usize);
        // SAFETY: the range is free RAM by the memory map, and seen there by the contract of `ready`; having left `rest` it is known to
        // nobody else.
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
    /// The block came from `alloc` of this zone with this layout, is freed once, and nothing uses it any more.
    unsafe fn dealloc(&mut self, zone: Zone, start: NonNull<u8>, layout: Layout) {
        // SAFETY: by the caller.
        unsafe {
            match zone {
                Zone::Low => self.low.dealloc(start, layout),
                Zone::High => self.high.dealloc(start, layout),
            }
        }
    }
}
