//! The heaps on the hosted platform.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::alloc::{alloc, dealloc};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::locked::Grow;

mod caches;
mod frames;
mod general;
mod locked;
mod pages;
mod reserve;

/// Declares a source with at most `$most` bytes in use at once, and a count of them.
macro_rules! source {
    ($name:ident, $most:expr) => {
        struct $name;

        impl $name {
            fn used() -> &'static core::sync::atomic::AtomicUsize {
                static USED: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);
                &USED
            }
        }

        // SAFETY: each run is a block of its own from the program's allocator until given back.
        unsafe impl crate::heap::locked::Grow for $name {
            fn grow(bytes: usize) -> Option<(core::ptr::NonNull<u8>, usize)> {
                crate::heap::tests::grow(Self::used(), $most, bytes)
            }
            unsafe fn give_back(start: core::ptr::NonNull<u8>, bytes: usize) {
                // SAFETY: by the caller, from `grow` with this length.
                unsafe { crate::heap::tests::give_back(Self::used(), start, bytes) };
            }
        }
    };
}
use source;

const RUN: usize = 64 << 10;

fn run(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 4096).unwrap()
}

fn grow(used: &AtomicUsize, most: usize, bytes: usize) -> Option<(NonNull<u8>, usize)> {
    let bytes = bytes.next_multiple_of(RUN);
    if used.fetch_add(bytes, Ordering::Relaxed) + bytes > most {
        used.fetch_sub(bytes, Ordering::Relaxed);
        return None;
    }
    // SAFETY: the size is not zero.
    Some((NonNull::new(unsafe { alloc(run(bytes)) })?, bytes))
}

/// # Safety
/// The run came from `grow` with this length.
unsafe fn give_back(used: &AtomicUsize, start: NonNull<u8>, bytes: usize) {
    used.fetch_sub(bytes, Ordering::Relaxed);
    // SAFETY: by the caller.
    unsafe { dealloc(start.as_ptr(), run(bytes)) };
}

/// The counters are the program's: whoever looks at them closely does so alone, the others together.
static COUNTERS: RwLock<()> = RwLock::new(());

fn alone() -> RwLockWriteGuard<'static, ()> {
    COUNTERS.write().unwrap_or_else(PoisonError::into_inner)
}

fn together() -> RwLockReadGuard<'static, ()> {
    COUNTERS.read().unwrap_or_else(PoisonError::into_inner)
}

/// A block that a test holds, with the heap's own face.
fn take<G: Grow>(heap: &super::Locked<G>, layout: Layout) -> Option<NonNull<u8>> {
    heap.allocate(layout)
}

/// Frees a block from [`take`].
fn give<G: Grow>(heap: &super::Locked<G>, block: NonNull<u8>, layout: Layout) {
    // SAFETY: tests free what they took, with its layout, once.
    unsafe { core::alloc::GlobalAlloc::dealloc(heap, block.as_ptr(), layout) };
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}
