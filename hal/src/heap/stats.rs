//! What the locked heaps count, on each CPU for itself. Any context.

use core::sync::atomic::{AtomicU64, Ordering};

use super::classes::{CLASSES, SIZES};
use crate::cpu::{self, MAX_CPUS};

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Allocations so far; moving a block that grew or shrank counts as one and one free.
    pub allocations: u64,
    /// Frees so far.
    pub frees: u64,
    /// Blocks that are allocated now.
    pub live_blocks: u64,
    /// Bytes in blocks that are allocated now, as they were asked for.
    pub live_bytes: u64,
    /// Allocations that failed for want of memory.
    pub failures: u64,
    /// Allocations that only the reserve could serve.
    pub from_reserve: u64,
    /// Allocations and frees in a hard interrupt, where they are forbidden.
    pub in_hard_irq: u64,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Allocations,
    Frees,
    AllocatedBytes,
    FreedBytes,
    Failures,
    FromReserve,
    InHardIrq,
}

const COUNTS: usize = 7;

/// One CPU's counters, apart from the others'.
#[repr(align(128))]
struct Counters {
    counts: [AtomicU64; COUNTS],
    /// Allocations by size class, and in the last place of those that no class serves.
    classes: [AtomicU64; CLASSES + 1],
}

static COUNTERS: [Counters; MAX_CPUS] = [const {
    Counters { counts: [const { AtomicU64::new(0) }; COUNTS], classes: [const { AtomicU64::new(0) }; CLASSES + 1] }
}; MAX_CPUS];

/// Adds on this CPU. Interrupts are off: nobody else writes this CPU's counters.
#[inline]
fn add_to(counter: &AtomicU64, count: u64) {
    if cfg!(feature = "std") {
        // Machines that run side by side share the counters of their CPUs.
        counter.fetch_add(count, Ordering::Relaxed);
    } else {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }
}

/// Adds to a count of CPU `cpu`, the caller's. Interrupts are off.
#[inline]
pub(super) fn add(cpu: usize, what: Count, count: u64) {
    add_to(&COUNTERS[cpu % MAX_CPUS].counts[what as usize], count);
}

/// Notes an allocation of `bytes`, served by `class`. Interrupts are off.
#[inline]
pub(super) fn allocated(cpu: usize, class: Option<usize>, bytes: usize) {
    add(cpu, Count::Allocations, 1);
    add(cpu, Count::AllocatedBytes, bytes as u64);
    if cfg!(debug_assertions) {
        add_to(&COUNTERS[cpu % MAX_CPUS].classes[class.unwrap_or(CLASSES)], 1);
    }
}

/// Notes a free. Interrupts are off.
#[inline]
pub(super) fn freed(cpu: usize, bytes: usize) {
    add(cpu, Count::Frees, 1);
    add(cpu, Count::FreedBytes, bytes as u64);
}

/// Adds to a count, with interrupts as they are: for what happens seldom.
pub(super) fn note(what: Count) {
    cpu::without_interrupts(|| add(cpu::current(), what, 1));
}

fn sum(of: impl Fn(&Counters) -> &AtomicU64) -> u64 {
    COUNTERS.iter().map(|cpu| of(cpu).load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
}

/// Returns the counters, over all locked heaps of the program. While other CPUs allocate the numbers need not belong to the same moment.
pub fn stats() -> Stats {
    let get = |what: Count| sum(|cpu| &cpu.counts[what as usize]);
    // Frees first: what is freed between two reads was counted as allocated before.
    let (frees, freed_bytes) = (get(Count::Frees), get(Count::FreedBytes));
    let allocations = get(Count::Allocations);
    Stats {
        allocations,
        frees,
        live_blocks: allocations.saturating_sub(frees),
        live_bytes: get(Count::AllocatedBytes).saturating_sub(freed_bytes),
        failures: get(Count::Failures),
        from_reserve: get(Count::FromReserve),
        in_hard_irq: get(Count::InHardIrq),
    }
}

/// Calls `each` with a size in bytes, `None` for all that are larger, and how many blocks up to it were allocated so far. Debug builds only:
/// release builds do not count by size.
pub fn by_size(mut each: impl FnMut(Option<usize>, u64)) {
    for class in 0..=CLASSES {
        each(SIZES.get(class).copied(), sum(|cpu| &cpu.classes[class]));
    }
}

/// Notes that a block grew or shrank where it is.
pub(super) fn resized(from: usize, to: usize) {
    cpu::without_interrupts(|| {
        let cpu = cpu::current();
        add(cpu, Count::AllocatedBytes, to as u64);
        add(cpu, Count::FreedBytes, from as u64);
    });
}
