//! The locked heap's memory: frames in the direct map.

use core::ptr::NonNull;

use super::memory;
use crate::heap::locked::Grow;

/// Grows a heap by page frames.
#[derive(Debug)]
pub struct Frames;

// SAFETY: what the frame allocator gives is RAM in the direct map, and nobody else's until it is freed.
unsafe impl Grow for Frames {
    fn grow(bytes: usize) -> Option<(NonNull<u8>, usize)> {
        memory::grow(bytes)
    }
    unsafe fn give_back(start: NonNull<u8>, bytes: usize) {
        // SAFETY: by the caller.
        unsafe { memory::shrink(start, bytes) };
    }
}

/// The program's heap: `#[global_allocator] static HEAP: hal::x86_64::Heap = hal::x86_64::Heap::new();`.
pub type Heap = crate::heap::locked::Heap<Frames>;
