//! A CPU's cache of free blocks in front of the locked heap: one bounded stack for each size class.
//!
//! Used with interrupts off by its own CPU, so that nothing on that CPU can come between; other CPUs reach in only to empty it when memory
//! runs out. Nobody ever waits for a cache: whoever finds it in use goes to the heap's lock instead. (On the hosted platform two machines
//! may even have the same CPU index.)
//!
//! UNSAFETY: free blocks are linked through their own first words.

use core::ptr::{self, NonNull};

use super::classes::{self, CLASSES};
use super::try_cell::TryCell;

/// The first word of a free block.
struct Free {
    next: *mut Free,
}

/// Free blocks of one class.
struct Stack {
    top: *mut Free,
    count: usize,
}

/// The stacks of one CPU, for whoever has the cache.
pub(super) struct Stacks([Stack; CLASSES]);

impl Stacks {
    /// Takes a block of `class`.
    #[inline]
    pub(super) fn pop(&mut self, class: usize) -> Option<NonNull<u8>> {
        let stack = self.0.get_mut(class)?;
        let block = NonNull::new(stack.top)?;
        crate::atomic::step();
        // SAFETY: what is on the stack is a free block that begins with its link, and belongs to the stack.
        stack.top = unsafe { block.as_ref() }.next;
        stack.count -= 1;
        Some(block.cast())
    }

    /// Whether there is room for a block of `class`.
    #[inline]
    pub(super) fn has_room(&self, class: usize) -> bool {
        self.0.get(class).is_some_and(|stack| stack.count < classes::room(class))
    }

    /// Keeps a block.
    ///
    /// # Safety
    /// The block is free, of `class`, and from now on the stack's.
    #[inline]
    pub(super) unsafe fn push(&mut self, class: usize, block: NonNull<u8>) {
        let stack = &mut self.0[class];
        // SAFETY: the block is at least 16 bytes, aligned to 16, and ours.
        unsafe { block.cast::<Free>().write(Free { next: stack.top }) };
        stack.top = block.cast().as_ptr();
        stack.count += 1;
    }

    /// Bytes in all stacks.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().enumerate().map(|(class, stack)| stack.count * classes::SIZES[class]).sum()
    }
}

/// See the module. Apart from its neighbours: CPUs use theirs all the time.
#[repr(align(128))]
pub(super) struct Cache(TryCell<Stacks>);

// SAFETY: free blocks are plain memory of no CPU in particular.
unsafe impl Send for Stacks {}

impl Cache {
    pub(super) const fn new() -> Self {
        Self(TryCell::new(Stacks([const { Stack { top: ptr::null_mut(), count: 0 } }; CLASSES])))
    }

    /// Calls `f` with the stacks, unless they are in use. Interrupts are off.
    #[inline]
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Stacks) -> R) -> Option<R> {
        self.0.with(f)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "cache_tests.rs"]
mod tests;
