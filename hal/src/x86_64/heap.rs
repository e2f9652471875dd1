//! The general heap's memory: frames in the direct map.

use core::ptr::NonNull;

use super::memory;
use crate::heap::locked::Grow;

/// Grows a heap by page frames.
#[derive(Debug)]
pub struct Frames;

// SAFETY: what the frame allocator gives is RAM in the direct map and nobody else's; it is never taken back.
unsafe impl Grow for Frames {
    fn grow(bytes: usize) -> Option<(NonNull<u8>, usize)> {
        memory::grow(bytes)
    }
}

/// The program's heap: `#[global_allocator] static HEAP: hal::x86_64::Heap = hal::x86_64::Heap::new();`.
pub type Heap = crate::heap::locked::Heap<Frames>;
