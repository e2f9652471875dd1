//! What DMA memory is allocated, by everything of this crate that allocates any. Any context.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{DmaBlock, DmaError, DmaLayout};
use crate::platform::seam;
use crate::system;

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Allocations so far.
    pub allocations: u64,
    /// Blocks that are allocated now, those that a device has among them.
    pub live_blocks: u64,
    /// Bytes in them, as they were asked for.
    pub live_bytes: u64,
    /// Allocations that the platform refused.
    pub failures: u64,
}

/// One system's counts.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Blocks and bytes that were allocated, then those that were freed.
    counts: [AtomicU64; 4],
    failures: AtomicU64,
}

impl Ledger {
    pub(crate) const fn new() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; 4], failures: AtomicU64::new(0) }
    }

    fn add(&self, at: usize, bytes: usize) {
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.counts[at + 1].fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Returns the counters. While other CPUs allocate the numbers need not belong to the same moment.
pub fn stats() -> Stats {
    system::with(|system| {
        // Frees first: what is freed between two reads was counted as allocated before.
        let [frees, freed] = [2, 3].map(|at| system.dma.counts[at].load(Ordering::Relaxed));
        let [allocations, allocated] = [0, 1].map(|at| system.dma.counts[at].load(Ordering::Relaxed));
        Stats {
            allocations,
            live_blocks: allocations.saturating_sub(frees),
            live_bytes: allocated.saturating_sub(freed),
            failures: system.dma.failures.load(Ordering::Relaxed),
        }
    })
}

/// Allocates from the platform.
pub(crate) fn allocate(layout: DmaLayout) -> Result<DmaBlock, DmaError> {
    let block = seam::dma_alloc(layout);
    system::with(|system| match block {
        Ok(_) => system.dma.add(0, layout.len),
        Err(_) => drop(system.dma.failures.fetch_add(1, Ordering::Relaxed)),
    });
    block
}

/// Notes that a block which [`allocate`] gave is about to be freed.
pub(crate) fn freeing(block: &DmaBlock) {
    system::with(|system| system.dma.add(2, block.layout.len));
}
