//! How many bytes a service holds for each timer.
//!
//! UNSAFETY: passes an allocator's calls on.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::subject::{OUTSTANDING, Random, SPREAD, Subject};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: by the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: by the caller.
        unsafe { System.dealloc(block, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes for each of a million armed timers, all that the service and its user hold for them.
pub fn bytes<S: Subject>() -> f64 {
    let before = LIVE.load(Ordering::Relaxed);
    let mut subject = S::make(OUTSTANDING);
    let mut random = Random(4711);
    (0..OUTSTANDING).for_each(|id| subject.start(id, 1 + random.below(SPREAD)));
    let after = LIVE.load(Ordering::Relaxed);
    drop(subject);
    (after - before) as f64 / f64::from(OUTSTANDING)
}
