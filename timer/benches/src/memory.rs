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

/// Bytes for each of a million armed timers, all that the service and its user hold for them, beyond those of a service with one.
pub fn bytes<S: Subject>() -> f64 {
    (held::<S>(OUTSTANDING) - held::<S>(1)) as f64 / f64::from(OUTSTANDING - 1)
}

fn held<S: Subject>(count: u32) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    let mut subject = S::make(count);
    let mut random = Random(4711);
    (0..count).for_each(|id| subject.start(id, 1 + random.below(SPREAD)));
    let after = LIVE.load(Ordering::Relaxed);
    drop(subject);
    after - before
}
