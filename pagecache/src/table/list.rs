//! Lists of pages, linked by their numbers: a page is in one list at most. Under the volume's lock.

use super::{NONE, Table};

/// Where a page is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Place {
    /// Nowhere: it is read or written, or pinned, or has no memory.
    Nowhere,
    /// Free, with memory.
    Free,
    /// Clean, in the small queue: seen for the first time.
    Small,
    /// Clean, in the main queue.
    Main,
    /// Dirty, by the epoch of its first change.
    Dirty,
    /// Dirty, and a sync waits for it.
    Urgent,
    /// Dirty, because it is mapped for writing.
    Mapped,
}

pub(super) const LISTS: usize = 6;

/// A list; the oldest is at the head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List {
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) len: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self { head: NONE, tail: NONE, len: 0 };
}

impl Table {
    /// A place's list. There is none for [`Place::Nowhere`].
    pub(crate) fn list(&self, place: Place) -> List {
        (place as usize).checked_sub(1).map_or(List::EMPTY, |at| self.lists[at])
    }

    /// Moves a page to the end of a list.
    pub(super) fn link(&mut self, slot: u32, place: Place) {
        crate::shim::work();
        self.unlink(slot);
        let Some(at) = (place as usize).checked_sub(1) else { return };
        let tail = self.lists[at].tail;
        let page = &mut self.pages[slot as usize];
        (page.place, page.prev, page.next) = (place, tail, NONE);
        match tail {
            NONE => self.lists[at].head = slot,
            tail => self.pages[tail as usize].next = slot,
        }
        self.lists[at].tail = slot;
        self.lists[at].len += 1;
    }

    fn unlink(&mut self, slot: u32) {
        let page = &mut self.pages[slot as usize];
        let (prev, next) = (page.prev, page.next);
        let Some(at) = (page.place as usize).checked_sub(1) else { return };
        page.place = Place::Nowhere;
        match prev {
            NONE => self.lists[at].head = next,
            prev => self.pages[prev as usize].next = next,
        }
        match next {
            NONE => self.lists[at].tail = prev,
            next => self.pages[next as usize].prev = prev,
        }
        self.lists[at].len -= 1;
    }
}
