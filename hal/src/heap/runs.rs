//! Runs of memory under talc: taken from a [`Grow`], given back when nothing in them is used.
//!
//! UNSAFETY: talc's face is unsafe; a run's length is kept at its end, as talc's own sources do.

use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::{Manual, Source};

/// Where a heap gets its memory from.
///
/// # Safety
/// What `grow` returns is readable, writable, aligned to 16, and exclusively the heap's until `give_back`.
pub unsafe trait Grow {
    /// Returns a run of at least `bytes` bytes and its length, or `None` if there is none. Called with the heap's lock held.
    fn grow(bytes: usize) -> Option<(NonNull<u8>, usize)>;
    /// Takes a run back. Called with the heap's lock held.
    ///
    /// # Safety
    /// The run came from `grow` with this length, and nothing uses it any more.
    unsafe fn give_back(start: NonNull<u8>, bytes: usize);
}

/// Stands at the end of a run, behind what talc uses.
#[derive(Clone, Copy)]
struct Footer {
    start: NonNull<u8>,
    bytes: usize,
}

/// Adapts [`Grow`] to talc. One empty run is kept, so that a block at the edge does not go to and fro.
struct Growing<G> {
    spare: Option<Footer>,
    _source: PhantomData<fn() -> G>,
}

// SAFETY: a spare run is nobody's memory in particular.
unsafe impl<G> Send for Growing<G> {}

impl<G> fmt::Debug for Growing<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Growing")
    }
}

// SAFETY: `acquire` reaches the allocator only through the reference that it is given, and `resize` gives up a run only as a whole.
unsafe impl<G: Grow> Source for Growing<G> {
    const TRACK_HEAP_END: bool = true;

    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // Room for talc's own records, which lie at the start of the first run, for a block's tag, and for the footer.
        const RECORDS: usize = 8 * 1024;
        let bytes = layout.size().checked_add(layout.align()).and_then(|bytes| bytes.checked_add(RECORDS)).ok_or(())?;
        let footer = match talc.source.spare.take_if(|spare| spare.bytes >= bytes) {
            Some(spare) => spare,
            None => G::grow(bytes).map(|(start, bytes)| Footer { start, bytes }).ok_or(())?,
        };
        // SAFETY: by the contract of `Grow` the run is ours, and it is long enough for a heap and the footer.
        let end = unsafe { talc.claim(footer.start.as_ptr(), footer.bytes - size_of::<Footer>()) };
        let Some(end) = end else {
            // SAFETY: the run came from `grow`, and talc has not taken it.
            unsafe { G::give_back(footer.start, footer.bytes) };
            return Err(());
        };
        // SAFETY: talc's heap ends at `end`, aligned to 16 and at least a footer before the run's end.
        unsafe { end.cast::<Footer>().write(footer) };
        Ok(())
    }

    unsafe fn resize(&mut self, chunk_base: *mut u8, heap_end: *mut u8, is_heap_base: bool) -> *mut u8 {
        if !is_heap_base {
            return heap_end;
        }
        // SAFETY: at the end of each run that talc knows stands the footer that `acquire` wrote. The first run, with talc's records, is never
        // empty.
        let footer = unsafe { heap_end.cast::<Footer>().read() };
        let lose = match self.spare {
            Some(spare) if spare.bytes >= footer.bytes => Some(footer),
            _ => self.spare.replace(footer),
        };
        if let Some(run) = lose {
            // SAFETY: the run came from `grow`, and talc gives it up by our answer, or did so before.
            unsafe { G::give_back(run.start, run.bytes) };
        }
        chunk_base
    }
}

/// What the heap's lock holds: talc over its runs, and the reserve.
pub(super) struct Inner<G: Grow> {
    talc: Talc<Growing<G>, talc::DefaultBinning>,
    reserve: Talc<Manual, talc::DefaultBinning>,
}

impl<G: Grow> Inner<G> {
    pub(super) const fn new() -> Self {
        Self { talc: Talc::new(Growing { spare: None, _source: PhantomData }), reserve: Talc::new(Manual) }
    }

    /// Fills the reserve: where it lies.
    pub(super) fn keep_reserve(&mut self, bytes: usize) -> Option<(NonNull<u8>, usize)> {
        if self.reserve.is_metadata_established() {
            return None;
        }
        let (start, length) = G::grow(bytes.checked_add(8 * 1024)?)?;
        // SAFETY: by the contract of `Grow` the run is ours, and it is never given back.
        unsafe { self.reserve.claim(start.as_ptr(), length) }.map(|_| (start, length))
    }

    #[inline]
    pub(super) fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: callers' layouts are not of size zero.
        unsafe { self.talc.allocate(layout) }
    }

    #[inline]
    pub(super) fn allocate_without_growing(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: as above.
        unsafe { self.talc.try_allocate(layout) }
    }

    pub(super) fn allocate_reserved(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: as above.
        unsafe { self.reserve.allocate(layout) }
    }

    /// # Safety
    /// The block came from `allocate` with this layout, and is freed once.
    #[inline]
    pub(super) unsafe fn free(&mut self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: by the caller.
        unsafe { self.talc.deallocate(block.as_ptr(), layout) };
    }

    /// # Safety
    /// The block came from `allocate_reserved` with this layout, and is freed once.
    pub(super) unsafe fn free_reserved(&mut self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: by the caller.
        unsafe { self.reserve.deallocate(block.as_ptr(), layout) };
    }

    /// Changes a block's size where it is: whether that could be done.
    ///
    /// # Safety
    /// The block came from `allocate` with this layout; the new size is not zero.
    pub(super) unsafe fn resize(&mut self, block: NonNull<u8>, layout: Layout, new_size: usize) -> bool {
        // SAFETY: by the caller.
        unsafe { self.talc.try_realloc_in_place(block.as_ptr(), layout, new_size) }
    }
}
