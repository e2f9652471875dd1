//! The physical heap over memory that stands for RAM.

use core::alloc::Layout;
use std::alloc::{alloc, dealloc};

use crate::firmware::memory_map::{FRAME, MemoryMap, Range};
use crate::heap::{Physical, Purpose};
use crate::hosted::Cpus;

const RAM: u64 = 16 << 20;
/// Where the RAM begins: 8 MiB below 4 GiB, so that it has two zones.
const BASE: u64 = (1 << 32) - RAM / 2;

/// Runs `f` with a heap of 16 MiB.
fn with_frames(f: impl FnOnce(&Physical)) {
    let layout = Layout::from_size_align(RAM as usize, 4 << 20).unwrap();
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc(layout) };
    assert!(!memory.is_null());
    Cpus::new(1).run(0, |_| {
        let heap = Physical::new();
        let mut map = MemoryMap::empty();
        map.add(Range { start: BASE, end: BASE + RAM });
        heap.init(&map, &map);
        // SAFETY: the block is RAM bytes long, ours, and outlives the heap.
        unsafe { heap.ready(memory.expose_provenance() as u64 - BASE, 1 << 46) };
        f(&heap);
    });
    // SAFETY: allocated above with this layout.
    unsafe { dealloc(memory, layout) };
}

fn free(heap: &Physical, phys: u64, bytes: u64, align: u64) {
    // SAFETY: tests free what they allocated, once.
    unsafe { heap.free(phys, bytes, align) };
}

/// X28: all frames come back, whatever the order, and large blocks can be had again.
#[test]
fn x28_frames_return() {
    with_frames(|heap| {
        for round in 0..4_u64 {
            let mut held = Vec::new();
            for n in 0.. {
                let bytes = FRAME << ((n + round) % 4);
                let Some(phys) = heap.allocate(bytes, FRAME, u64::MAX, Purpose::Ordinary) else { break };
                assert!(phys >= BASE && phys + bytes <= BASE + RAM && phys.is_multiple_of(bytes));
                held.push((phys, bytes));
            }
            let mut sorted = held.clone();
            sorted.sort_unstable();
            assert!(sorted.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "frames overlap");
            assert!(heap.bytes().1 < 16 * FRAME, "{} bytes could not be had", heap.bytes().1);
            let (even, odd): (Vec<_>, Vec<_>) = held.into_iter().partition(|block| (block.0 >> 13) & 1 == 0);
            even.into_iter().chain(odd).for_each(|(phys, bytes)| free(heap, phys, bytes, FRAME));
            assert_eq!(heap.bytes(), (RAM, RAM));
            let large = heap.allocate(RAM / 4, FRAME, u64::MAX, Purpose::Ordinary).expect("a large block");
            free(heap, large, RAM / 4, FRAME);
        }
    });
}

#[test]
fn a_device_with_32_bits_gets_memory_below_the_line() {
    with_frames(|heap| {
        let anywhere = heap.allocate(FRAME, FRAME, u64::MAX, Purpose::Ordinary).unwrap();
        assert!(anywhere >= 1 << 32, "memory below 4 GiB is kept for those who need it");
        let low = heap.allocate(FRAME, FRAME, u64::from(u32::MAX), Purpose::Ordinary).unwrap();
        assert!(low < 1 << 32);
        assert_eq!(heap.allocate(FRAME, FRAME, 1 << 20, Purpose::Ordinary), None, "below all RAM");
        free(heap, anywhere, FRAME, FRAME);
        free(heap, low, FRAME, FRAME);
    });
}

#[test]
fn the_last_frames_are_for_write_back() {
    with_frames(|heap| {
        let kept = 1 << 20;
        heap.keep_reserve(kept);
        let take = |purpose| heap.allocate(FRAME, FRAME, u64::MAX, purpose);
        let mut held: Vec<_> = std::iter::from_fn(|| take(Purpose::Ordinary)).collect();
        assert_eq!(heap.bytes().1, kept);
        let reserved: Vec<_> = std::iter::from_fn(|| take(Purpose::WriteBack)).collect();
        assert_eq!((reserved.len() as u64 * FRAME, heap.bytes().1), (kept, 0));
        held.extend(reserved);
        held.into_iter().for_each(|phys| free(heap, phys, FRAME, FRAME));
        assert_eq!(heap.bytes().1, RAM);
    });
}
