//! The locked heap on the hosted platform.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::alloc::{alloc, dealloc};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::heap::locked::{Grow, Heap};
use crate::heap::stats;
use crate::hosted::Cpus;
use crate::irq::{self, Handled};

/// Gives 64 KiB at a time, or what is asked for, three times.
struct Thrice;

static GIVEN: AtomicUsize = AtomicUsize::new(0);

// SAFETY: each run is a block of its own from the program's allocator, until given back.
unsafe impl Grow for Thrice {
    fn grow(bytes: usize) -> Option<(NonNull<u8>, usize)> {
        if GIVEN.fetch_add(1, Ordering::Relaxed) >= 3 {
            return None;
        }
        let size = bytes.max(64 * 1024);
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(Layout::from_size_align(size, 4096).ok()?) };
        Some((NonNull::new(start)?, size))
    }
    unsafe fn give_back(start: NonNull<u8>, bytes: usize) {
        // SAFETY: from `grow`, with this layout.
        unsafe { dealloc(start.as_ptr(), Layout::from_size_align_unchecked(bytes, 4096)) };
    }
}

/// Gives what the program's allocator has.
struct Ample;

// SAFETY: as for `Thrice`.
unsafe impl Grow for Ample {
    fn grow(bytes: usize) -> Option<(NonNull<u8>, usize)> {
        let size = bytes.max(1 << 20);
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(Layout::from_size_align(size, 4096).ok()?) };
        Some((NonNull::new(start)?, size))
    }
    unsafe fn give_back(start: NonNull<u8>, bytes: usize) {
        // SAFETY: from `grow`, with this layout.
        unsafe { dealloc(start.as_ptr(), Layout::from_size_align_unchecked(bytes, 4096)) };
    }
}

#[test]
fn blocks_are_disjoint_and_counted_and_the_end_of_memory_is_an_error() {
    let _alone = super::alone();
    Cpus::new(1).run(0, |_| {
        let heap = Heap::<Thrice>::new();
        let before = stats();
        let mut blocks = Vec::new();
        let mut size = 1;
        loop {
            let layout = Layout::from_size_align(size, 1 << (size % 9)).unwrap();
            // SAFETY: the layout is not of size zero.
            let block = unsafe { heap.alloc(layout) };
            if block.is_null() {
                break;
            }
            assert!(block.addr().is_multiple_of(layout.align()));
            // SAFETY: the block is that long and ours.
            unsafe { block.write_bytes(blocks.len() as u8, size) };
            blocks.push((block, layout));
            size = size * 7 % 2999 + 1;
        }
        let after = stats();
        let bytes: usize = blocks.iter().map(|(_, layout)| layout.size()).sum();
        assert!(bytes > 3 * 64 * 1024 / 2, "only {bytes} bytes of three runs could be had");
        assert_eq!(after.allocations - before.allocations, blocks.len() as u64);
        assert_eq!(after.live_bytes - before.live_bytes, bytes as u64);
        assert_eq!(after.failures, before.failures + 1);
        for (index, (block, layout)) in blocks.iter().enumerate() {
            // SAFETY: the block is that long and was written above.
            let content = unsafe { core::slice::from_raw_parts(*block, layout.size()) };
            assert!(content.iter().all(|byte| *byte == index as u8), "block {index} was overwritten");
        }
        for (block, layout) in blocks {
            // SAFETY: the block came from this heap with this layout.
            unsafe { heap.dealloc(block, layout) };
        }
        assert_eq!(stats().live_bytes, before.live_bytes);
    });
}

/// In a hard interrupt an allocation and a free are refused; the same in task context are not (the control).
#[test]
fn the_heap_is_trapped_in_hard_interrupts_only() {
    let _alone = super::alone();
    static HEAP: Heap<Ample> = Heap::new();
    const LAYOUT: Layout = Layout::new::<[u64; 4]>();
    fn use_heap() -> (bool, bool) {
        // A block from outside, so that the free is tried even where the allocation is refused.
        // SAFETY: the layout is not of size zero.
        let refused = catch_unwind(|| unsafe { HEAP.alloc(LAYOUT) });
        let Ok(block) = refused else {
            // SAFETY: never reaches the heap: the trap comes first. Were it to, the block is valid for writes.
            let freed = catch_unwind(AssertUnwindSafe(|| unsafe {
                let foreign = alloc(LAYOUT);
                let result = catch_unwind(AssertUnwindSafe(|| HEAP.dealloc(foreign, LAYOUT)));
                dealloc(foreign, LAYOUT);
                result.is_err()
            }));
            return (true, freed.unwrap_or(true));
        };
        // SAFETY: the block came from this heap with this layout.
        (false, catch_unwind(AssertUnwindSafe(|| unsafe { HEAP.dealloc(block, LAYOUT) })).is_err())
    }

    let cpus = Cpus::new(1);
    cpus.run(0, |task| {
        let before = stats().in_hard_irq;
        assert_eq!(use_heap(), (false, false), "task context");
        assert_eq!(stats().in_hard_irq, before);
        static SEEN: AtomicUsize = AtomicUsize::new(0);
        let (_interrupt, message) = irq::message(task, 0, |_| {
            let (allocation, free) = use_heap();
            SEEN.store(1 + usize::from(allocation) + 2 * usize::from(free), Ordering::Relaxed);
            Handled::Yes
        })
        .unwrap();
        cpus.raise(0, irq::Slot(message.data as u16));
        task.wait_until(|| SEEN.load(Ordering::Relaxed) != 0);
        // Release builds only count.
        let refused = if cfg!(debug_assertions) { 4 } else { 1 };
        assert_eq!(SEEN.load(Ordering::Relaxed), refused, "hard interrupt");
        assert_eq!(stats().in_hard_irq, before + 2);
    });
}
