//! What the heap counts. Any context.

use core::sync::atomic::{AtomicU64, Ordering};

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Allocations so far; growing or shrinking a block counts as one and one free.
    pub allocations: u64,
    /// Frees so far.
    pub frees: u64,
    /// Bytes in blocks that are allocated now, as they were asked for.
    pub live_bytes: u64,
    /// Allocations that failed for want of memory.
    pub failures: u64,
    /// Allocations and frees in a hard interrupt, where they are forbidden.
    pub in_hard_irq: u64,
}

pub(super) struct Counters {
    pub(super) allocations: AtomicU64,
    pub(super) frees: AtomicU64,
    pub(super) allocated_bytes: AtomicU64,
    pub(super) freed_bytes: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) in_hard_irq: AtomicU64,
}

pub(super) static COUNTERS: Counters = Counters {
    allocations: AtomicU64::new(0),
    frees: AtomicU64::new(0),
    allocated_bytes: AtomicU64::new(0),
    freed_bytes: AtomicU64::new(0),
    failures: AtomicU64::new(0),
    in_hard_irq: AtomicU64::new(0),
};

/// Returns the counters. While other CPUs allocate the numbers need not belong to the same moment.
pub fn stats() -> Stats {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let freed = get(&COUNTERS.freed_bytes);
    Stats {
        allocations: get(&COUNTERS.allocations),
        frees: get(&COUNTERS.frees),
        live_bytes: get(&COUNTERS.allocated_bytes).saturating_sub(freed),
        failures: get(&COUNTERS.failures),
        in_hard_irq: get(&COUNTERS.in_hard_irq),
    }
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
