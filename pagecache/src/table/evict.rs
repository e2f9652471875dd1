//! Which page goes when another needs its place: S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023) with a small
//! queue whose length follows from what it would save.
//!
//! New pages enter a small queue. One that was used again before it reached the end of that goes to the main queue, the others leave; a page
//! that comes back after that (its [ghost](super::ghosts) is still there) enters the main queue at once. At the end of the main queue a page that was
//! used goes round again, with one use less.
//!
//! How long should the small queue be? Pages that come back soon after they left it would have been there had it been a little longer; pages that come
//! back soon after they left the main queue, had that been. Each such page moves the bound by a little. So what is used evenly has a small queue of a
//! two-hundredth, and what is used for a while and then no more has a long one. Pages that nobody has used yet (they were read ahead, or with others)
//! do not count against the bound, up to half of all.
//!
//! Only clean pages that nobody has pinned are in the queues. Under the volume's lock.

use super::ghosts::{Ghost, ticks};
use super::list::Place;
use super::{NONE, Table};
use crate::broken::{self, Hazard};
use crate::state::PageState;

/// Uses that are counted.
const MOST_USES: u8 = 4;
/// How many pages one search looks at: then the oldest goes, whatever its uses.
const PATIENCE: u32 = 64;
/// How many pages one search moves to the main queue because that is to be filled.
const MOVES: u32 = 8;
/// Ghosts of pages that left the small queue count while that many evictions are no more than so many hundredths of the pages,
const KNOWN: u16 = ticks(90);
/// and are recent while they are no more than so many.
const RECENT: u16 = ticks(1);

impl Table {
    /// A page was used: `true` if it had been read ahead and this is the first time. Uses of one page in a row are one, and the first is what it was
    /// brought in for.
    #[inline]
    pub(crate) fn touch(&mut self, slot: u32) -> bool {
        let page = &mut self.pages[slot as usize];
        if core::mem::take(&mut page.fresh) {
            self.fresh -= 1;
        } else if self.last_used != slot {
            page.uses = (page.uses + 1).min(MOST_USES);
        }
        self.last_used = slot;
        core::mem::take(&mut page.ahead)
    }

    /// A page that nobody has: free, or made free. `None`: all are dirty, in flight or pinned, or there is no memory.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let free = self.list(Place::Free).head;
        if free != NONE {
            return Some(free);
        }
        let victim = self.victim()?;
        let page = &self.pages[victim as usize];
        self.evictions += 1;
        self.wasted += u64::from(page.ahead);
        self.ghosts.put(page.index, page.place == Place::Main);
        self.change(victim, PageState::Free);
        Some(victim)
    }

    /// Bounds of the small queue's length. A page that is read in parts stays until the next part is wanted, in the smallest cache too.
    fn bounds(&self) -> (u32, u32) {
        let pages = self.with_memory();
        ((pages / 200).max(pages.min(32) / 4), pages / 5 * 4)
    }

    fn victim(&mut self) -> Option<u32> {
        let (least, most) = self.bounds();
        self.target = self.target.clamp(least, most);
        let target = self.target + self.fresh.min(self.with_memory() / 2);
        for step in 0.. {
            let (small, main) = (self.list(Place::Small), self.list(Place::Main));
            let from_small = small.len > target || main.len == 0;
            let slot = if from_small { small.head } else { main.head };
            if slot == NONE {
                return None;
            }
            // While memory comes, what is over goes to the main queue, which would stay empty otherwise as long as nothing is used twice.
            self.filling &= small.len > target + 1;
            let moves = from_small && self.filling && step < MOVES;
            let page = &mut self.pages[slot as usize];
            if step >= PATIENCE || page.uses == 0 && !moves {
                return Some(slot);
            }
            page.uses -= u8::from(!from_small);
            page.main = true;
            self.link(slot, Place::Main);
        }
        None
    }

    /// Which queue a page enters that was not there.
    pub(super) fn enters_main(&mut self, index: u64) -> bool {
        let ghost = self.ghosts.take(index);
        let step = (self.with_memory() / 1024).max(1);
        match ghost {
            Some(Ghost { main: false, age }) if age <= RECENT => self.target = self.target.saturating_add(step),
            Some(Ghost { main: true, age }) if age <= RECENT => self.target = self.target.saturating_sub(step),
            _ => {}
        }
        ghost.is_some_and(|ghost| !ghost.main && ghost.age < KNOWN) || broken::is(Hazard::ScanDisplaces)
    }
}
