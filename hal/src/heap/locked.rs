//! The locked heap: `talc` behind an interrupt-safe lock, with a cache for each CPU in front, for `#[global_allocator]`.
//!
//! It begins empty, asks its [`Grow`] for memory when it needs some, and gives a run back when nothing in it is used. Blocks up to 4 KiB
//! come from the CPU's cache, which takes them from talc and returns them in lots; what the caches of all CPUs keep is bounded, and
//! given back when memory runs out. [`Heap::keep_reserve`] sets memory aside that only [`write_back`](super::write_back) gets. Why so:
//! ADR-2.
//!
//! Contexts: bottom half and task; in a hard interrupt it traps. Rank: [`Rank::HEAP`].

use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering};

use super::cache::{Cache, Stacks};
pub use super::runs::Grow;
use super::runs::Inner;
use super::stats::{self, Count};
use super::{classes, inject, reserve, trap};
use crate::cpu::{self, IrqGuard, MAX_CPUS};
use crate::sync::{IrqSpinLock, Rank};

/// Most blocks that move between a cache and talc in one go: bounds how long the lock is held.
const LOT: usize = 16;

/// The heap.
pub struct Heap<G: Grow> {
    inner: IrqSpinLock<Inner<G>>,
    caches: [Cache; MAX_CPUS],
    /// Where the reserve lies: first address and length; empty without one.
    reserve: [AtomicUsize; 2],
}

impl<G: Grow> fmt::Debug for Heap<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap").finish_non_exhaustive()
    }
}

impl<G: Grow> Default for Heap<G> {
    fn default() -> Self {
        Self::new()
    }
}

impl<G: Grow> Heap<G> {
    /// An empty heap.
    pub const fn new() -> Self {
        Self {
            inner: IrqSpinLock::new(Rank::HEAP, Inner::new()),
            caches: [const { Cache::new() }; MAX_CPUS],
            reserve: [const { AtomicUsize::new(0) }; 2],
        }
    }

    /// Sets at least `bytes` aside for [`write_back`](super::write_back). Once: `false` if there is a reserve already, or no memory.
    pub fn keep_reserve(&self, bytes: usize) -> bool {
        let kept = self.inner.lock().keep_reserve(bytes);
        if let Some((start, length)) = kept {
            self.reserve[0].store(start.as_ptr().addr(), Ordering::Relaxed);
            self.reserve[1].store(length, Ordering::Release);
        }
        kept.is_some()
    }

    /// Allocates, or says that it cannot.
    pub fn allocate(&self, layout: Layout) -> Option<NonNull<u8>> {
        if layout.size() == 0 || inject::strikes() {
            return None;
        }
        self.take(layout)
    }

    /// Bytes that the caches keep: free, and not in use by anybody. At most [`Self::CACHE_BOUND`] for each CPU.
    pub fn cached_bytes(&self) -> usize {
        self.caches.iter().filter_map(|cache| cpu::without_interrupts(|| cache.with(|stacks| stacks.bytes()))).sum()
    }

    /// Most bytes that the cache of one CPU keeps.
    pub const CACHE_BOUND: usize = classes::BOUND;

    /// Returns to talc what the caches keep, those of other CPUs too, as far as they are not in use this moment.
    pub fn drain_caches(&self) {
        for cache in &self.caches {
            for class in 0..classes::CLASSES {
                // A lot at a time: the lock and the interrupts are held off for no longer than otherwise.
                while cpu::without_interrupts(|| cache.with(|stacks| self.flush(stacks, class, LOT))) == Some(LOT) {}
            }
        }
    }

    #[inline]
    fn take(&self, layout: Layout) -> Option<NonNull<u8>> {
        trap::check("an allocation");
        let _off = IrqGuard::new();
        let cpu = cpu::current();
        let class = classes::of(layout);
        if let Some(class) = class
            && let Some(Some(block)) = self.caches[cpu % MAX_CPUS].with(|stacks| stacks.pop(class))
        {
            stats::allocated(cpu, Some(class), layout.size());
            return Some(block);
        }
        self.take_slowly(cpu, class, layout)
    }

    #[cold]
    #[inline(never)]
    fn take_slowly(&self, cpu: usize, class: Option<usize>, layout: Layout) -> Option<NonNull<u8>> {
        let want = class.map_or(layout, classes::layout);
        let block = class.and_then(|class| self.refill(cpu, class)).or_else(|| self.inner.lock().allocate(want));
        let block = block.or_else(|| {
            self.drain_caches();
            self.inner.lock().allocate(want)
        });
        if let Some(block) = block {
            stats::allocated(cpu, class, layout.size());
            return Some(block);
        }
        if reserve::is_open()
            && let Some(block) = self.inner.lock().allocate_reserved(want)
        {
            stats::allocated(cpu, class, layout.size());
            stats::add(cpu, Count::FromReserve, 1);
            return Some(block);
        }
        stats::add(cpu, Count::Failures, 1);
        None
    }

    /// Takes a lot for this CPU's cache, and one of it for the caller.
    fn refill(&self, cpu: usize, class: usize) -> Option<NonNull<u8>> {
        let lot = (classes::room(class) / 2).min(LOT);
        self.caches[cpu % MAX_CPUS].with(|stacks| {
            let mut inner = self.inner.lock();
            let first = inner.allocate(classes::layout(class))?;
            for _ in 1..lot {
                // Not worth growing for.
                let Some(block) = inner.allocate_without_growing(classes::layout(class)) else { break };
                // SAFETY: just allocated with the class's layout, and nobody else's.
                unsafe { stacks.push(class, block) };
            }
            Some(first)
        })?
    }

    /// Returns up to `count` blocks of `class` to talc: how many it were.
    fn flush(&self, stacks: &mut Stacks, class: usize, count: usize) -> usize {
        let mut inner = self.inner.lock();
        for done in 0..count {
            let Some(block) = stacks.pop(class) else { return done };
            // SAFETY: allocated by this heap with the class's layout: only such blocks are in its caches.
            unsafe { inner.free(block, classes::layout(class)) };
        }
        count
    }

    #[inline]
    fn is_reserved(&self, block: NonNull<u8>) -> bool {
        // Relaxed: a block of the reserve reached its holder after both were stored.
        let (start, length) = (self.reserve[0].load(Ordering::Relaxed), self.reserve[1].load(Ordering::Relaxed));
        block.as_ptr().addr().wrapping_sub(start) < length
    }

    /// # Safety
    /// The block came from `take` with this layout, and is freed once.
    #[inline]
    unsafe fn give(&self, block: NonNull<u8>, layout: Layout) {
        trap::check("a free");
        let _off = IrqGuard::new();
        let cpu = cpu::current();
        stats::freed(cpu, layout.size());
        let class = classes::of(layout);
        if let Some(class) = class.filter(|_| !self.is_reserved(block)) {
            let kept = self.caches[cpu % MAX_CPUS].with(|stacks| {
                if !stacks.has_room(class) {
                    self.flush(stacks, class, (classes::room(class) / 2).min(LOT));
                }
                // SAFETY: by the caller the block is free, and its layout made it one of this class; the flush made room.
                unsafe { stacks.push(class, block) };
            });
            if kept.is_some() {
                return;
            }
        }
        let layout = class.map_or(layout, classes::layout);
        let mut inner = self.inner.lock();
        // SAFETY: by the caller, the block came from here; `take` asked for this layout, of the part that the address names.
        unsafe { if self.is_reserved(block) { inner.free_reserved(block, layout) } else { inner.free(block, layout) } };
    }
}

// SAFETY: talc is an allocator by its own contract, and every call into it holds the lock; a cache hands each block out once.
unsafe impl<G: Grow> GlobalAlloc for Heap<G> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: by the caller, the block came from `alloc` with this layout.
            unsafe { self.give(block, layout) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's new size, rounded up to the alignment, does not overflow.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        let (old_class, new_class) = (classes::of(layout), classes::of(new));
        let stays = match (old_class, new_class, NonNull::new(block)) {
            (Some(old), Some(new), _) => old == new,
            // SAFETY: by the caller, the block came from `alloc` with this layout, which no class serves: talc allocated it with it.
            (None, None, Some(at)) if !self.is_reserved(at) => unsafe {
                trap::check("an allocation");
                self.inner.lock().resize(at, layout, new_size)
            },
            _ => false,
        };
        if stays {
            stats::resized(layout.size(), new_size);
            return block;
        }
        // SAFETY: by the caller, as for the three of them.
        unsafe {
            let moved = self.alloc(new);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(block, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}
