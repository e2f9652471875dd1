//! Which page goes when another needs its place: S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023).
//!
//! New pages enter a small queue. One that was used again before it reached the end of that goes to the main queue, the others leave; a page
//! that comes back soon after that (its ghost is still there) enters the main queue at once. At the end of the main queue a page that was used
//! goes round again, with one use less. So what is read once passes through a tenth of the cache and leaves the rest alone.
//!
//! Only clean pages that nobody has pinned are in the queues. Ghosts are fingerprints in a table with one place for each, of which a later
//! one displaces an earlier. Under the volume's lock.

use super::list::Place;
use super::{NONE, Table};
use crate::broken::{self, Hazard};
use crate::state::PageState;

/// Uses that are counted.
const MOST_USES: u8 = 3;
/// Uses that carry a page from the small queue to the main one.
const PROMOTED: u8 = 2;
/// How many pages one search looks at: then the oldest goes, whatever its uses.
const PATIENCE: u32 = 64;

impl Table {
    /// A page was used: `true` if it had been read ahead and this is the first time. Uses of one page in a row are one.
    pub(crate) fn touch(&mut self, slot: u32) -> bool {
        let page = &mut self.pages[slot as usize];
        if self.last_used != slot {
            self.last_used = slot;
            page.uses = (page.uses + 1).min(MOST_USES);
        }
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
        if page.place == Place::Small {
            let (at, mark) = self.ghost(page.index);
            self.ghosts[at] = mark;
        }
        self.change(victim, PageState::Free);
        Some(victim)
    }

    fn victim(&mut self) -> Option<u32> {
        let target = self.with_memory() / 10;
        for step in 0.. {
            let (small, main) = (self.list(Place::Small), self.list(Place::Main));
            let from_small = small.len > target || main.len == 0;
            let slot = if from_small { small.head } else { main.head };
            if slot == NONE {
                return None;
            }
            let page = &mut self.pages[slot as usize];
            if step >= PATIENCE || page.uses < if from_small { PROMOTED } else { 1 } {
                return Some(slot);
            }
            page.uses = if from_small { 0 } else { page.uses - 1 };
            page.main = true;
            self.link(slot, Place::Main);
        }
        None
    }

    /// Which queue a page enters that was not there.
    pub(super) fn enters_main(&mut self, index: u64) -> bool {
        let (at, mark) = self.ghost(index);
        let known = self.ghosts[at] == mark;
        if known {
            self.ghosts[at] = 0;
        }
        known || broken::is(Hazard::ScanDisplaces)
    }

    /// A page's place among the ghosts, and what marks it there.
    fn ghost(&self, index: u64) -> (usize, u32) {
        let hash = super::mix(index);
        (hash as usize & (self.ghosts.len() - 1), (hash >> 32) as u32 | 1)
    }
}
