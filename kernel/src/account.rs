//! Allocations in the path of I/O: counted around the phases that must not allocate. Task context.

use core::sync::atomic::{AtomicU64, Ordering};

use undercroft_hal::heap;

static IN_IO_PATH: AtomicU64 = AtomicU64::new(0);

/// A stretch of I/O: what is allocated while it lives is counted.
pub(crate) struct Stretch {
    before: u64,
}

impl Stretch {
    pub(crate) fn begin() -> Self {
        Self { before: heap::stats().allocations }
    }
}

impl Drop for Stretch {
    fn drop(&mut self) {
        IN_IO_PATH.fetch_add(heap::stats().allocations - self.before, Ordering::Relaxed);
    }
}

/// Allocations in all stretches so far.
pub(crate) fn allocations() -> u64 {
    IN_IO_PATH.load(Ordering::Relaxed)
}
