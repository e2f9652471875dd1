//! Which page is where: the slots of indices, by open addressing, half full at most. Changed under the volume's lock.
//!
//! An entry is the index itself, its slot, and whether the page's bytes are valid: what a hit has to know, in one word. Where the search begins, eight
//! of them share a line of the processor's cache. Who is about to take the lock has that line fetched before, and what the hit will need next.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use undercroft_block::Error;
use undercroft_hal::cpu;

use super::{NONE, PAGE, Page};
use crate::memory::filled;

const EMPTY: u64 = u64::MAX;
const VALID: u64 = 1;
const SLOT_BITS: u32 = 23;
/// Slots that an entry can tell apart: 32 GiB of pages.
pub(super) const MOST_SLOTS: u32 = 1 << SLOT_BITS;
/// Indices that an entry can tell apart, less that of an empty one: volumes of 8 PiB, but for a page.
pub(crate) const MOST_INDICES: u64 = (1 << (u64::BITS - 1 - SLOT_BITS)) - 1;

#[derive(Debug)]
pub(crate) struct Index {
    entries: Box<[AtomicU64]>,
    /// By how much a hash is shifted for its first bits.
    shift: u32,
    /// Where what is known of pages begins, and where each chunk of them does: addresses to be fetched, never to be used.
    pages_at: usize,
    chunks_at: Box<[AtomicUsize]>,
    chunk_shift: u32,
}

const fn entry(index: u64, slot: u32) -> u64 {
    index << (SLOT_BITS + 1) | (slot as u64) << 1
}

#[inline]
const fn index_of(entry: u64) -> u64 {
    entry >> (SLOT_BITS + 1)
}

#[inline]
const fn slot_of(entry: u64) -> u32 {
    (entry >> 1) as u32 & (MOST_SLOTS - 1)
}

impl Index {
    /// Entries that there are for so many pages.
    pub(super) const fn entries(pages: usize) -> usize {
        (pages * 2).next_power_of_two()
    }

    pub(super) fn new(count: usize, pages: &[Page], chunks: usize, chunk_shift: u32) -> Result<Self, Error> {
        let entries = Self::entries(count);
        Ok(Self {
            entries: filled(entries, |_| AtomicU64::new(EMPTY))?,
            shift: u64::BITS - entries.trailing_zeros(),
            pages_at: pages.as_ptr().addr(),
            chunks_at: filled(chunks, |_| AtomicUsize::new(0))?,
            chunk_shift,
        })
    }

    /// A chunk's pages are elsewhere now.
    pub(super) fn chunk_is_at(&self, chunk: usize, addr: usize) {
        self.chunks_at[chunk].store(addr, Ordering::Relaxed);
    }

    /// Where an index would be first: a product spreads well into its upper bits.
    #[inline]
    fn home(&self, index: u64) -> usize {
        (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    #[inline]
    fn get(&self, at: usize) -> u64 {
        // There are entries, and their number is a power of two.
        self.entries[at & (self.entries.len() - 1)].load(Ordering::Relaxed)
    }

    fn set(&self, at: usize, entry: u64) {
        self.entries[at & (self.entries.len() - 1)].store(entry, Ordering::Relaxed);
    }

    /// Has fetched what a hit will need: with or without the lock.
    #[inline]
    pub(crate) fn fetch(&self, index: u64) {
        let entry = self.get(self.home(index));
        let slot = slot_of(entry) as usize;
        if let Some(chunk) = self.chunks_at.get(slot >> self.chunk_shift).filter(|_| index_of(entry) == index) {
            let within = (slot & ((1 << self.chunk_shift) - 1)) * PAGE;
            cpu::prefetch(chunk.load(Ordering::Relaxed).wrapping_add(within));
            cpu::prefetch(self.pages_at.wrapping_add(slot * size_of::<Page>()));
        }
    }

    /// Where the entry of an index is, and what it is.
    #[inline]
    fn look(&self, index: u64) -> Option<(usize, u64)> {
        let mut at = self.home(index);
        loop {
            let entry = self.get(at);
            if index_of(entry) == index {
                return Some((at, entry));
            }
            if entry == EMPTY {
                return None;
            }
            at += 1;
        }
    }

    /// The slot of an index.
    #[inline]
    pub(super) fn find(&self, index: u64) -> Option<u32> {
        // What is too far for an entry is nowhere.
        self.look(index).filter(|_| index < MOST_INDICES).map(|(_, entry)| slot_of(entry))
    }

    /// The slot of an index, if its page is valid.
    #[inline]
    pub(super) fn find_valid(&self, index: u64) -> Option<u32> {
        let (_, entry) = self.look(index)?;
        (entry & VALID != 0 && index < MOST_INDICES).then_some(slot_of(entry))
    }

    /// Puts the slot of an index in. There are fewer slots than entries.
    pub(super) fn insert(&self, index: u64, slot: u32) {
        debug_assert!(slot != NONE && index < MOST_INDICES);
        let mut at = self.home(index);
        while self.get(at) != EMPTY {
            at += 1;
        }
        self.set(at, entry(index, slot));
    }

    /// The page of an index is valid now, or not any more.
    pub(super) fn validate(&self, index: u64, valid: bool) {
        if let Some((at, entry)) = self.look(index) {
            self.set(at, entry & !VALID | u64::from(valid));
        }
    }

    /// Takes the slot of an index out, and moves up those behind it that would rather be where it was.
    pub(super) fn remove(&self, index: u64) {
        let Some((mut hole, _)) = self.look(index) else { return };
        let mask = self.entries.len() - 1;
        let mut at = hole + 1;
        loop {
            let next = self.get(at);
            if next == EMPTY {
                break;
            }
            let wants = self.home(index_of(next));
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
            let (mut random, index) = (Random::new(seed), Index::new(64, &[], 0, 4).unwrap());
            let mut held = HashMap::<u64, u32>::new();
            let mut free: Vec<u32> = (0..64).collect();
            for _ in 0..5000 {
                let page = random.below(200) as u64 * [1, 4096][random.below(2)];
                if let Some(slot) = held.remove(&page) {
                    index.remove(page);
                    free.push(slot);
                } else if let Some(slot) = free.pop() {
                    index.insert(page, slot);
                    held.insert(page, slot);
                }
                assert_eq!(index.find(page), held.get(&page).copied());
                held.iter().for_each(|(page, slot)| assert_eq!(index.find(*page), Some(*slot)));
                let valid = random.chance(50);
                index.validate(page, valid);
                assert_eq!(index.find_valid(page), held.get(&page).copied().filter(|_| valid));
            }
        }
    }
}
