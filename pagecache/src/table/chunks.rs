//! The memory of pages: taken and given back in chunks, since a block of its own for each page would cost 64 bytes of bookkeeping.
//!
//! Chunks are allocated and freed by the caller, with no lock held (A-PC-07); here they are put in and taken out. A page that is read is lent to the device
//! meanwhile: it has no bytes here, and if it never comes back none ever again. Under the volume's lock.

use core::ops::Range;

use undercroft_hal::dma::{DmaBuf, DmaPages};

use super::Table;
use super::list::Place;
use crate::broken::{self, Hazard};
use crate::shim;
use crate::state::PageState;

/// Pages in a chunk, at least and at most.
pub(super) const LEAST: usize = 16;
const MOST: u32 = 128;
/// Chunks from which on they are larger instead of more: the table of them, through which every hit goes, is to stay in the processor's cache.
const ENOUGH: u32 = 128;

/// Pages that are looked at in one hold of the lock for a chunk to be given back.
const LOOKS: usize = 128;

/// Pages in a chunk of a table of so many.
pub(super) const fn pages_in_a_chunk(pages: u32) -> u32 {
    let chunk = (pages / ENOUGH).next_power_of_two();
    if chunk < LEAST as u32 {
        LEAST as u32
    } else if chunk > MOST {
        MOST
    } else {
        chunk
    }
}

impl Table {
    /// Pages in a chunk.
    pub(crate) const fn chunk(&self) -> u32 {
        1 << self.chunk_shift
    }

    /// Chunks at most.
    pub(crate) const fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The slots of a chunk.
    const fn slots(&self, at: usize) -> Range<usize> {
        at << self.chunk_shift..(at + 1) << self.chunk_shift
    }

    /// The chunk of a slot, and its page there.
    #[inline]
    const fn place(&self, slot: u32) -> (usize, usize) {
        let slot = slot as usize;
        (slot >> self.chunk_shift, slot & ((1 << self.chunk_shift) - 1))
    }

    /// Pages that have memory.
    pub(crate) const fn with_memory(&self) -> u32 {
        self.chunks_held << self.chunk_shift
    }

    /// Chunks that there may be beside those that there are.
    pub(crate) const fn may_grow(&self) -> u32 {
        self.chunks_allowed.saturating_sub(self.chunks_held)
    }

    /// Puts a chunk in. It comes back if there is no room for it any more.
    pub(crate) fn put_chunk(&mut self, chunk: DmaPages) -> Option<DmaPages> {
        if self.chunks_held >= self.chunks_allowed || chunk.len() < self.chunk() as usize {
            return Some(chunk);
        }
        let Some(at) = self.chunks.iter().position(Option::is_none) else { return Some(chunk) };
        self.index.chunk_is_at(at, chunk.virt());
        self.chunks[at] = Some(chunk);
        self.chunks_held += 1;
        self.filling = true;
        for slot in self.slots(at) {
            self.link(slot as u32, Place::Free);
        }
        None
    }

    /// The hazard of memory that ran out and was not noticed.
    pub(crate) fn pretend_chunk(&mut self) {
        if let Some(at) = self.chunks.iter().position(Option::is_none) {
            self.chunks_held += 1;
            self.slots(at).for_each(|slot| self.link(slot as u32, Place::Free));
        }
    }

    /// Allows so many pages, rounded up to chunks and cut to what the table was made for.
    pub(crate) fn allow(&mut self, pages: u32) {
        self.chunks_allowed = pages.div_ceil(self.chunk()).clamp(1, self.chunks.len() as u32);
    }

    /// Whether there is a chunk too many.
    pub(crate) const fn is_over(&self) -> bool {
        self.chunks_held > self.chunks_allowed
    }

    /// Takes out, of a few chunks from place `from` on, the one whose pages are used least and of which none is dirty, in flight or pinned; and says where
    /// to look next, if there is anywhere.
    pub(crate) fn coldest_chunk(&mut self, from: usize) -> (Option<DmaPages>, Option<usize>) {
        let few = if broken::is(Hazard::HeldForAll) { usize::MAX } else { (LOOKS >> self.chunk_shift).max(1) };
        let to = from.saturating_add(few).min(self.chunks.len());
        let next = Some(to).filter(|to| *to < self.chunks.len());
        let Some((_, at)) = (from..to).filter_map(|at| Some((self.heat(at)?, at))).min() else { return (None, next) };
        for slot in self.slots(at) {
            if self.pages[slot].state == PageState::Clean {
                self.evictions += 1;
                self.change(slot as u32, PageState::Free);
            }
            self.link(slot as u32, Place::Nowhere);
        }
        self.chunks_held -= 1;
        // There may be more here.
        (self.chunks[at].take(), Some(from))
    }

    /// How much a chunk's pages are used. `None`: it cannot go.
    fn heat(&self, at: usize) -> Option<u32> {
        self.chunks[at].as_ref()?;
        self.pages[self.slots(at)].iter().inspect(|_| shim::work()).try_fold(0, |heat, page| match page.place {
            Place::Free => Some(heat),
            Place::Small => Some(heat + 1 + u32::from(page.uses)),
            Place::Main => Some(heat + 2 + u32::from(page.uses)),
            Place::Nowhere | Place::Dirty | Place::Urgent | Place::Mapped => None,
        })
    }

    /// A page's bytes: [`PAGE`] of them, none if it has no memory or a device has that.
    #[inline]
    pub(crate) fn bytes(&self, slot: u32) -> &[u8] {
        let (at, page) = self.place(slot);
        self.chunks[at].as_ref().and_then(|chunk| chunk.bytes(page)).unwrap_or(&[])
    }

    /// A page's bytes, to change.
    #[inline]
    pub(crate) fn bytes_mut(&mut self, slot: u32) -> &mut [u8] {
        let (at, page) = self.place(slot);
        self.chunks[at].as_mut().and_then(|chunk| chunk.bytes_mut(page)).unwrap_or(&mut [])
    }

    /// Where a page's memory is, as a device would see it.
    pub(crate) fn addr(&self, slot: u32) -> Option<u64> {
        let (at, page) = self.place(slot);
        Some(self.chunks[at].as_ref()?.segment(page).addr)
    }

    /// Whether a device has a page's memory.
    pub(crate) fn is_lent(&self, slot: u32) -> bool {
        let (at, page) = self.place(slot);
        self.chunks[at].as_ref().is_some_and(|chunk| chunk.is_lent(page))
    }

    /// Whether a page's memory follows that of a run of pages, so that a device can have them in one piece.
    pub(crate) fn follows(&self, run: &Range<u32>, slot: u32, reach: Reach) -> bool {
        let (chunk, page) = self.place(slot);
        let meets = run.end == slot && page > 0 && run.end - run.start < reach.pages;
        let boundary = || {
            let addr = self.chunks[chunk].as_ref().map_or(0, |chunk| chunk.segment(page).addr);
            reach.boundary == 0 || !addr.is_multiple_of(reach.boundary)
        };
        meets && boundary()
    }

    /// Lends the memory of a run of pages that lie [one behind the other](Table::follows).
    pub(crate) fn lend(&mut self, run: Range<u32>) -> Option<DmaBuf> {
        let (at, page) = self.place(run.start);
        self.chunks[at].as_mut()?.lend(page..page + (run.end - run.start) as usize)
    }

    /// Takes the memory of a run that begins with a page back; what is of no such run is returned.
    pub(crate) fn take_back(&mut self, slot: u32, buf: DmaBuf) -> Option<DmaBuf> {
        let (at, _) = self.place(slot);
        match &mut self.chunks[at] {
            Some(chunk) => chunk.take_back(buf).err(),
            None => Some(buf),
        }
    }
}

/// What a device takes as one piece.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// Pages at most.
    pub(crate) pages: u32,
    /// What it must not cross; 0 for nothing.
    pub(crate) boundary: u64,
}
