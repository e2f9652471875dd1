//! The allocators that are compared, each behind one face.
//!
//! UNSAFETY: an allocator's face is unsafe; all callers are in `heap`, which frees each block once and with its layout.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;

use undercroft_hal::heap::locked::{Grow, Heap};

/// Bytes that each allocator gets.
pub const ARENA: usize = 16 << 20;

fn arena() -> NonNull<u8> {
    NonNull::from(vec![0_u8; ARENA].leak()).cast()
}

/// An allocator that any CPU may use.
pub trait Allocator: Sync + Sized {
    /// For the table.
    const NAME: &'static str;
    /// One with an arena of its own, which is never given back.
    fn make() -> Self;
    /// Allocates.
    fn take(&self, layout: Layout) -> Option<NonNull<u8>>;
    /// Frees.
    ///
    /// # Safety
    /// `block` came from `take` with this layout, and is freed once.
    unsafe fn give(&self, block: NonNull<u8>, layout: Layout);
}

/// talc behind a spin mutex: what a program without us would use.
pub struct Talc(spin::Mutex<talc::base::Talc<talc::source::Manual, talc::DefaultBinning>>);

impl Allocator for Talc {
    const NAME: &'static str = "talc behind a spin mutex";
    fn make() -> Self {
        let mut talc = talc::base::Talc::new(talc::source::Manual);
        // SAFETY: the arena is leaked, so it is the allocator's for ever.
        unsafe { talc.claim(arena().as_ptr(), ARENA) }.expect("an arena has room");
        Self(spin::Mutex::new(talc))
    }
    fn take(&self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the layout is not of size zero.
        unsafe { self.0.lock().allocate(layout) }
    }
    unsafe fn give(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: by the caller.
        unsafe { self.0.lock().deallocate(block.as_ptr(), layout) }
    }
}

/// linked_list_allocator behind a spin mutex.
pub struct LinkedList(spin::Mutex<linked_list_allocator::Heap>);

impl Allocator for LinkedList {
    const NAME: &'static str = "linked_list_allocator behind a spin mutex";
    fn make() -> Self {
        // SAFETY: the arena is leaked, so it is the allocator's for ever.
        Self(spin::Mutex::new(unsafe { linked_list_allocator::Heap::new(arena().as_ptr(), ARENA) }))
    }
    fn take(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.lock().allocate_first_fit(layout).ok()
    }
    unsafe fn give(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: by the caller.
        unsafe { self.0.lock().deallocate(block, layout) }
    }
}

/// buddy_system_allocator behind a spin mutex.
pub struct Buddy(spin::Mutex<buddy_system_allocator::Heap<32>>);

impl Allocator for Buddy {
    const NAME: &'static str = "buddy_system_allocator behind a spin mutex";
    fn make() -> Self {
        let mut heap = buddy_system_allocator::Heap::new();
        // SAFETY: the arena is leaked, so it is the allocator's for ever.
        unsafe { heap.init(arena().as_ptr().expose_provenance(), ARENA) };
        Self(spin::Mutex::new(heap))
    }
    fn take(&self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.lock().alloc(layout).ok()
    }
    unsafe fn give(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: by the caller.
        unsafe { self.0.lock().dealloc(block, layout) }
    }
}

/// Gives the locked heap pieces of what the program's allocator has, an arena's worth at most in each.
pub struct Pieces;

// SAFETY: each run is a leaked allocation of its own.
unsafe impl Grow for Pieces {
    fn grow(bytes: usize) -> Option<(NonNull<u8>, usize)> {
        (bytes <= ARENA).then(|| (arena(), ARENA))
    }
    unsafe fn give_back(_start: NonNull<u8>, _bytes: usize) {}
}

/// hal's locked heap.
pub struct Locked(Heap<Pieces>);

impl Allocator for Locked {
    const NAME: &'static str = "the locked heap";
    fn make() -> Self {
        Self(Heap::new())
    }
    fn take(&self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the layout is not of size zero.
        NonNull::new(unsafe { self.0.alloc(layout) })
    }
    unsafe fn give(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: by the caller.
        unsafe { self.0.dealloc(block.as_ptr(), layout) }
    }
}
