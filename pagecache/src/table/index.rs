//! Which page is where: the slots of indices, by open addressing, half full at most. Changed under the volume's lock.
//!
//! An entry is the upper half of the index's hash, whose first bits say where the entry wants to be, and the slot. They lie together: where the search
//! begins, eight of them share a line of the processor's cache. Who is about to take the lock may look first, so that the line is on its way while the
//! lock is taken; what was seen then is a [`Hint`] and is believed only if the page says the same.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

use undercroft_block::Error;

use super::NONE;
use crate::memory::filled;

const EMPTY: u64 = u64::MAX;

/// What was seen of an index without the lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hint(u64);

impl Hint {
    /// The slot that it speaks of.
    #[inline]
    pub(super) const fn slot(self) -> usize {
        self.0 as u32 as usize
    }
}

#[derive(Debug)]
pub(crate) struct Index {
    entries: Box<[AtomicU64]>,
    /// By how much the upper half of a hash is shifted for its first bits.
    shift: u32,
}

/// The upper half of an index's hash: a product spreads well into its upper bits.
#[inline]
const fn tag(index: u64) -> u32 {
    (index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

impl Index {
    /// Entries that there are for so many pages.
    pub(super) const fn entries(pages: usize) -> usize {
        (pages * 2).next_power_of_two()
    }

    pub(super) fn new(pages: usize) -> Result<Self, Error> {
        let entries = Self::entries(pages);
        let shift = 32 - entries.trailing_zeros();
        Ok(Self { entries: filled(entries, |_| AtomicU64::new(EMPTY))?, shift })
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        (tag >> self.shift) as usize
    }

    #[inline]
    fn get(&self, at: usize) -> u64 {
        // There is at least one entry, and their number is a power of two.
        self.entries[at & (self.entries.len() - 1)].load(Ordering::Relaxed)
    }

    fn set(&self, at: usize, entry: u64) {
        self.entries[at & (self.entries.len() - 1)].store(entry, Ordering::Relaxed);
    }

    /// What there is where an index would be first. With or without the lock.
    #[inline]
    pub(crate) fn hint(&self, index: u64) -> Hint {
        Hint(self.get(self.home(tag(index))))
    }

    /// The first slot with the hash of an index of which `is` is true.
    #[inline]
    pub(super) fn find(&self, index: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = tag(index);
        let mut at = self.home(tag);
        loop {
            let entry = self.get(at);
            if entry == EMPTY {
                return None;
            }
            let slot = entry as u32;
            if (entry >> 32) as u32 == tag && is(slot) {
                return Some(slot);
            }
            at += 1;
        }
    }

    /// Puts the slot of an index in. There are fewer slots than entries.
    pub(super) fn insert(&self, index: u64, slot: u32) {
        debug_assert!(slot != NONE);
        let tag = tag(index);
        let mut at = self.home(tag);
        while self.get(at) != EMPTY {
            at += 1;
        }
        self.set(at, u64::from(tag) << 32 | u64::from(slot));
    }

    /// Takes the slot of an index out, and moves up those behind it that would rather be where it was.
    pub(super) fn remove(&self, index: u64, slot: u32) {
        let entry = u64::from(tag(index)) << 32 | u64::from(slot);
        let mut hole = self.home(tag(index));
        while self.get(hole) != entry {
            if self.get(hole) == EMPTY {
                return;
            }
            hole += 1;
        }
        let mask = self.entries.len() - 1;
        let mut at = hole + 1;
        loop {
            let next = self.get(at);
            if next == EMPTY {
                break;
            }
            let wants = self.home((next >> 32) as u32);
            if at.wrapping_sub(wants) & mask >= at.wrapping_sub(hole) & mask {
                self.set(hole, next);
                hole = at;
            }
            at += 1;
        }
        self.set(hole, EMPTY);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use undercroft_hosts::Random;

    use super::*;

    #[test]
    fn what_was_put_in_is_found_until_it_is_taken_out() {
        for seed in 0..20 {
            let (mut random, index) = (Random::new(seed), Index::new(64).unwrap());
            let (mut held, mut names) = (HashMap::<u64, u32>::new(), vec![u64::MAX; 64]);
            let mut free: Vec<u32> = (0..64).collect();
            for _ in 0..5000 {
                let page = random.below(200) as u64 * [1, 4096][random.below(2)];
                if let Some(slot) = held.remove(&page) {
                    index.remove(page, slot);
                    names[slot as usize] = u64::MAX;
                    free.push(slot);
                } else if let Some(slot) = free.pop() {
                    index.insert(page, slot);
                    names[slot as usize] = page;
                    held.insert(page, slot);
                }
                let find = |page: u64| index.find(page, |slot| names[slot as usize] == page);
                assert_eq!(find(page), held.get(&page).copied());
                held.iter().for_each(|(page, slot)| assert_eq!(find(*page), Some(*slot)));
            }
        }
    }
}
