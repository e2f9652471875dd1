//! The pages of a volume: found by index, in one list by their state, with memory in chunks. Made once; nothing here allocates afterwards.
//!
//! Under the volume's lock.

mod chunks;
mod evict;
mod ghosts;
mod index;
mod list;
#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::sync::Arc;

use undercroft_block::Error;
use undercroft_hal::dma::DmaPages;

use self::chunks::LEAST;
pub(crate) use self::chunks::Reach;
use self::ghosts::Ghosts;
pub(crate) use self::index::{Index, MOST_INDICES};
pub(crate) use self::list::Place;
use self::list::{LISTS, List};
use crate::broken::{self, Hazard};
use crate::line::Line;
use crate::memory::filled;
use crate::shim;
use crate::state::{self, PageState};

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// No page.
pub(crate) const NONE: u32 = u32::MAX;

/// What is known of a page. What a hit looks at comes first, and lies in one line of the processor's cache.
#[derive(Debug)]
#[repr(C, align(16))]
pub(crate) struct Page {
    /// Its index in the volume; of no meaning while it is free.
    pub(crate) index: u64,
    /// Who waits until it is not in flight any more.
    pub(crate) waiters: Line,
    state: PageState,
    uses: u8,
    /// It was read ahead, and not used yet.
    pub(crate) ahead: bool,
    /// Nobody has used it since it came.
    fresh: bool,
    main: bool,
    place: Place,
    /// The epoch in which it got the first change that is not sent yet.
    pub(crate) since: u32,
    next: u32,
    prev: u32,
    pins: u16,
    /// Of those, pins of mappings by which it may be changed at any time.
    maps: u16,
}

/// The bookkeeping per page, with its entries in the index and its ghosts at their most: the bound is 96 bytes.
const _: () = assert!(size_of::<Page>() + 4 * 8 + Ghosts::BYTES + size_of::<Option<DmaPages>>() / LEAST <= 96);

/// The pages.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) pages: Box<[Page]>,
    pub(crate) index: Arc<Index>,
    ghosts: Ghosts,
    /// What the small queue's length is to be, and pages that nobody has used yet.
    target: u32,
    fresh: u32,
    /// Memory came, and the main queue is not what it is to be yet.
    filling: bool,
    chunks: Box<[Option<DmaPages>]>,
    /// Pages in a chunk: a power of two, and its logarithm.
    chunk_shift: u32,
    chunks_held: u32,
    chunks_allowed: u32,
    /// Pages that somebody waits for.
    lines: u32,
    lists: [List; LISTS],
    counts: [u32; PageState::ALL.len()],
    /// The present epoch. It goes on with every sync and every tick.
    pub(crate) epoch: u32,
    last_used: u32,
    pub(crate) evictions: u64,
    /// Pages that were read ahead and evicted before they were used.
    pub(crate) wasted: u64,
}

impl Table {
    /// A table for up to `pages` pages, none with memory yet.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub(crate) fn new(pages: u32) -> Result<Self, Error> {
        let pages = pages.clamp(1, index::MOST_SLOTS / 2);
        let chunk = chunks::pages_in_a_chunk(pages);
        let chunks = pages.div_ceil(chunk);
        let pages = chunks as usize * chunk as usize;
        let blank = |_| Page {
            index: 0,
            since: 0,
            next: NONE,
            prev: NONE,
            waiters: Line::EMPTY,
            pins: 0,
            maps: 0,
            state: PageState::Free,
            place: Place::Nowhere,
            uses: 0,
            main: false,
            ahead: false,
            fresh: false,
        };
        let mut counts = [0; PageState::ALL.len()];
        counts[PageState::Free as usize] = pages as u32;
        let pages_there = filled(pages, blank)?;
        let index = Index::new(pages, &pages_there, chunks as usize, chunk.trailing_zeros())?;
        Ok(Self {
            pages: pages_there,
            index: Arc::new(index),
            ghosts: Ghosts::new(pages)?,
            target: 0,
            fresh: 0,
            filling: true,
            chunks: filled(chunks as usize, |_| None)?,
            chunk_shift: chunk.trailing_zeros(),
            chunks_held: 0,
            chunks_allowed: chunks,
            lines: 0,
            lists: [List::EMPTY; LISTS],
            counts,
            epoch: 0,
            last_used: NONE,
            evictions: 0,
            wasted: 0,
        })
    }

    /// The page of an index, if it is here.
    #[inline]
    pub(crate) fn find(&self, index: u64) -> Option<u32> {
        shim::work();
        self.index.find(index)
    }

    /// The page of an index, if it is here, valid, and nobody waits for it.
    #[inline]
    pub(crate) fn find_ready(&self, index: u64) -> Option<u32> {
        let slot = self.index.find_valid(index)?;
        // As a rule nobody waits for any page, and what is known of this one need not be looked at.
        (self.lines == 0 || self.pages[slot as usize].waiters.is_empty()).then_some(slot)
    }

    /// The line of a page, which may be changed: it had waiters or it had not.
    pub(crate) fn line(&mut self, slot: u32, change: impl FnOnce(&mut Line)) {
        let waiters = &mut self.pages[slot as usize].waiters;
        let before = waiters.is_empty();
        change(waiters);
        self.lines = self.lines + u32::from(before) - u32::from(waiters.is_empty());
    }

    /// Takes the line of a page.
    pub(crate) fn take_line(&mut self, slot: u32) -> Line {
        let mut line = Line::EMPTY;
        self.line(slot, |waiters| core::mem::swap(waiters, &mut line));
        line
    }

    #[inline]
    pub(crate) fn page(&self, slot: u32) -> &Page {
        &self.pages[slot as usize]
    }

    #[inline]
    pub(crate) fn page_mut(&mut self, slot: u32) -> &mut Page {
        &mut self.pages[slot as usize]
    }

    /// A page's state.
    #[inline]
    pub(crate) fn state(&self, slot: u32) -> PageState {
        shim::work();
        self.pages[slot as usize].state
    }

    /// Pages in a state.
    pub(crate) const fn count(&self, state: PageState) -> u32 {
        self.counts[state as usize]
    }

    /// Pages that are not as the device has them, or that are on their way to it: what bounds writers.
    pub(crate) const fn unwritten(&self) -> u32 {
        self.count(PageState::Dirty) + self.count(PageState::Writing) + self.count(PageState::Redirtied)
    }

    /// Write-backs that it takes, or that are under way, until the device has all that it does not have now.
    pub(crate) const fn unsent(&self) -> u32 {
        self.unwritten() + self.count(PageState::Redirtied)
    }

    /// Free pages with memory.
    pub(crate) fn free(&self) -> u32 {
        self.list(Place::Free).len
    }

    /// Makes a free page that of `index`, which has none.
    pub(crate) fn enter(&mut self, slot: u32, index: u64, state: PageState) {
        let main = self.enters_main(index);
        self.index.insert(index, slot);
        let page = &mut self.pages[slot as usize];
        (page.index, page.main) = (index, main);
        (page.uses, page.ahead, page.fresh) = (0, false, true);
        self.fresh += 1;
        self.change(slot, state);
    }

    /// Changes a page's state, and with it its place.
    ///
    /// # Panics
    /// In debug and test builds, if the change is not legal.
    pub(crate) fn change(&mut self, slot: u32, to: PageState) {
        let epoch = self.epoch;
        let page = &mut self.pages[slot as usize];
        let from = core::mem::replace(&mut page.state, to);
        state::check(page.index, from, to);
        // A failed write dates the page anew: whoever waited for that attempt has had it.
        if to.is_dirty() && !from.is_dirty() {
            page.since = epoch;
        }
        self.counts[from as usize] -= 1;
        self.counts[to as usize] += 1;
        let index = page.index;
        if from.is_valid() != to.is_valid() {
            self.index.validate(index, to.is_valid());
        }
        if to == PageState::Free {
            self.index.remove(index);
            self.fresh -= u32::from(core::mem::take(&mut self.pages[slot as usize].fresh));
        }
        self.settle(slot);
    }

    /// Puts a page into the list that its state asks for.
    fn settle(&mut self, slot: u32) {
        let page = &self.pages[slot as usize];
        let place = match page.state {
            // Memory that a device did not give back is of no use to anybody.
            PageState::Free if self.is_lent(slot) && !broken::is(Hazard::KeptUsedAgain) => Place::Nowhere,
            PageState::Free => Place::Free,
            PageState::Reading | PageState::Writing => Place::Nowhere,
            PageState::Clean if page.pins > 0 => Place::Nowhere,
            PageState::Clean if page.main => Place::Main,
            PageState::Clean => Place::Small,
            PageState::Dirty | PageState::Redirtied if page.place == Place::Urgent => Place::Urgent,
            PageState::Dirty | PageState::Redirtied if self.is_mapped(slot) => Place::Mapped,
            PageState::Dirty | PageState::Redirtied => Place::Dirty,
        };
        if place != page.place {
            self.link(slot, place);
        }
    }

    /// Has a dirty page written before the others.
    pub(crate) fn hurry(&mut self, slot: u32) {
        if matches!(self.pages[slot as usize].place, Place::Dirty | Place::Mapped) {
            self.link(slot, Place::Urgent);
        }
    }

    /// The page after this one in its list.
    pub(crate) fn next(&self, slot: u32) -> u32 {
        self.pages[slot as usize].next
    }

    /// Keeps a page from being evicted. `false`: there are too many pins.
    pub(crate) fn pin(&mut self, slot: u32) -> bool {
        let page = &mut self.pages[slot as usize];
        let Some(pins) = page.pins.checked_add(1) else { return false };
        page.pins = pins;
        self.settle(slot);
        true
    }

    /// Undoes one [`Table::pin`].
    pub(crate) fn unpin(&mut self, slot: u32) {
        let page = &mut self.pages[slot as usize];
        page.pins = page.pins.saturating_sub(1);
        self.settle(slot);
    }

    /// A pinned page is mapped for writing: from here on it counts as changed, whatever is known of it.
    pub(crate) fn map(&mut self, slot: u32) {
        self.pages[slot as usize].maps += 1;
        self.changes(slot);
        self.settle(slot);
    }

    /// Undoes one [`Table::map`]: what was changed last may have come after the copy that is on its way.
    pub(crate) fn unmap(&mut self, slot: u32) {
        let page = &mut self.pages[slot as usize];
        page.maps = page.maps.saturating_sub(1);
        self.changes(slot);
        self.settle(slot);
    }

    /// Whether a page may be changed by a mapping.
    pub(crate) fn is_mapped(&self, slot: u32) -> bool {
        self.pages[slot as usize].maps > 0 && !broken::is(Hazard::MappedTakenForClean)
    }

    /// A valid page is changed.
    pub(crate) fn changes(&mut self, slot: u32) {
        match self.state(slot) {
            PageState::Clean | PageState::Reading => self.change(slot, PageState::Dirty),
            PageState::Writing => self.change(slot, PageState::Redirtied),
            PageState::Dirty | PageState::Redirtied | PageState::Free => {}
        }
    }

    /// How many have pinned a page.
    pub(crate) fn pins(&self, slot: u32) -> u16 {
        self.pages[slot as usize].pins
    }
}
