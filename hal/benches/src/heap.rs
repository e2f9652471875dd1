//! What heaps are asked to do.
//!
//! UNSAFETY: calls the unsafe face of an allocator; each block is freed once, by the function that took it.

use std::alloc::Layout;
use std::hint::black_box;

use crate::allocators::Allocator;
use crate::rounds;

/// Sizes of the range.
pub const SIZES: [usize; 7] = [64, 128, 256, 512, 1024, 2048, 4096];

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a small size")
}

/// Takes and gives back one block of `size`, `count` times.
pub fn pairs<A: Allocator>(heap: &A, size: usize, count: usize) {
    let layout = layout(size);
    for _ in 0..count {
        let block = black_box(heap.take(black_box(layout)).expect("an arena has room"));
        // SAFETY: just taken.
        unsafe { heap.give(block, layout) };
    }
}

/// Replaces blocks of a set of 256 by blocks of other sizes from 64 to 4096 bytes, `count` times.
pub fn churn<A: Allocator>(heap: &A, seed: u64, count: usize) {
    let mut random = Random(seed | 1);
    let mut live: Vec<_> = (0..256).map(|_| take(heap, &mut random)).collect();
    for _ in 0..count {
        let at = random.below(live.len());
        let (block, layout) = live[at];
        // SAFETY: it is in the set, and leaves it.
        unsafe { heap.give(block, layout) };
        live[at] = take(heap, &mut random);
    }
    for (block, layout) in live {
        // SAFETY: as above.
        unsafe { heap.give(block, layout) };
    }
}

fn take<A: Allocator>(heap: &A, random: &mut Random) -> (std::ptr::NonNull<u8>, Layout) {
    let layout = layout(64 + random.below(4033));
    (heap.take(layout).expect("an arena has room"), layout)
}

/// Which part of the arena can be in use at once, after a long life: blocks of 64 to 4096 bytes are allocated until none can be
/// had, half of them are freed, and so on; the best of the ten fillings that follow ten others.
pub fn density<A: Allocator>(heap: &A) -> f64 {
    let mut random = Random(12345);
    let mut live = Vec::new();
    let mut worst = f64::MAX;
    for filling in 0..20 {
        loop {
            let layout = layout(64 + random.below(4033));
            let Some(block) = heap.take(layout) else { break };
            live.push((block, layout));
        }
        let bytes: usize = live.iter().map(|(_, layout)| layout.size()).sum();
        if filling >= 10 {
            worst = worst.min(bytes as f64 / crate::allocators::ARENA as f64);
        }
        for _ in 0..live.len() / 2 {
            let (block, layout) = live.swap_remove(random.below(live.len()));
            // SAFETY: it was in the list, and left it.
            unsafe { heap.give(block, layout) };
        }
    }
    worst
}

/// A round of pairs over all sizes at `cpus` CPUs at once: nanoseconds per pair, by wall clock and all CPUs together.
pub fn round_of_pairs<A: Allocator>(heap: &A, cpus: usize, count: usize) -> f64 {
    let nanos = rounds::on_cpus(cpus, |_| SIZES.iter().for_each(|&size| pairs(heap, size, count)));
    nanos / (cpus * count * SIZES.len()) as f64
}

/// The same of churn.
pub fn round_of_churn<A: Allocator>(heap: &A, cpus: usize, count: usize) -> f64 {
    rounds::on_cpus(cpus, |cpu| churn(heap, 77 + cpu as u64, count)) / (cpus * count) as f64
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % end
    }
}
