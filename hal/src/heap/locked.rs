//! The locked heap: `talc` behind an interrupt-safe lock, for `#[global_allocator]`.
//!
//! It begins empty and asks its [`Grow`] for memory when it needs some. Contexts: bottom half and task; in a hard interrupt it
//! traps. Rank: [`Rank::HEAP`].

use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

use super::stats::{COUNTERS, add};
use crate::context::{self, Kind};
use crate::sync::{IrqSpinLock, Rank};

/// Where a heap gets its memory from.
///
/// # Safety
/// What `grow` returns is readable, writable, exclusively the heap's, and stays so for ever.
pub unsafe trait Grow {
    /// Returns a run of at least `bytes` bytes and its length, or `None` if there is none. Called with the heap's lock held.
    fn grow(bytes: usize) -> Option<(NonNull<u8>, usize)>;
}

/// Adapts [`Grow`] to talc.
struct Growing<G>(PhantomData<fn() -> G>);

impl<G> fmt::Debug for Growing<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Growing")
    }
}

// SAFETY: `acquire` reaches the allocator only through the reference that it is given.
unsafe impl<G: Grow> Source for Growing<G> {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // Room for talc's own records: its metadata lies at the start of the first run, and a block carries a tag.
        const RECORDS: usize = 8 * 1024;
        let bytes = layout.size().checked_add(layout.align()).and_then(|bytes| bytes.checked_add(RECORDS)).ok_or(())?;
        let (start, length) = G::grow(bytes).ok_or(())?;
        // SAFETY: by the contract of `Grow` the run is ours.
        unsafe { talc.claim(start.as_ptr(), length) }.map(|_| ()).ok_or(())
    }
}

type Inner<G> = Talc<Growing<G>, talc::DefaultBinning>;

/// The heap.
pub struct Heap<G: Grow> {
    inner: IrqSpinLock<Inner<G>>,
}

impl<G: Grow> fmt::Debug for Heap<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap").finish_non_exhaustive()
    }
}

impl<G: Grow> Heap<G> {
    /// An empty heap.
    pub const fn new() -> Self {
        Self { inner: IrqSpinLock::new(Rank::HEAP, Talc::new(Growing(PhantomData))) }
    }
}

impl<G: Grow> Default for Heap<G> {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts, and in debug builds panics at, a use of the heap in a hard interrupt.
fn check_context(doing: &str) {
    if context::current() == Kind::HardIrq {
        add(&COUNTERS.in_hard_irq, 1);
        if cfg!(debug_assertions) {
            panic!("{doing} in a hard interrupt");
        }
    }
}

// SAFETY: talc is an allocator by its own contract; every call into it holds the lock.
unsafe impl<G: Grow> GlobalAlloc for Heap<G> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check_context("an allocation");
        // SAFETY: the caller's layout is not of size zero.
        let block = unsafe { self.inner.lock().allocate(layout) };
        match block {
            Some(block) => {
                add(&COUNTERS.allocations, 1);
                add(&COUNTERS.allocated_bytes, layout.size() as u64);
                block.as_ptr()
            }
            None => {
                add(&COUNTERS.failures, 1);
                ptr::null_mut()
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        check_context("a free");
        add(&COUNTERS.frees, 1);
        add(&COUNTERS.freed_bytes, layout.size() as u64);
        // SAFETY: by the caller, the block came from `alloc` with this layout.
        unsafe { self.inner.lock().deallocate(block, layout) };
    }
}
