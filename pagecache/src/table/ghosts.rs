//! What was evicted lately: fingerprints, each in the one place that its hash says, where a later one displaces an earlier.
//!
//! An entry says which queue the page left, and when, on that queue's own clock of evictions. Under the volume's lock.

use alloc::boxed::Box;

use undercroft_block::Error;

use crate::memory::filled;

/// Ticks of a queue's clock in as many evictions as there are pages.
const TICKS: u32 = 1024;

/// A page's ghost: which queue it left, and how many ticks ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ghost {
    pub(super) main: bool,
    pub(super) age: u16,
}

#[derive(Debug)]
pub(super) struct Ghosts {
    /// 15 bits of hash, one for the queue, 16 of time. 0: nobody's.
    places: Box<[u32]>,
    /// Evictions from each queue, and how many are a tick.
    evicted: [u32; 2],
    tick: u32,
}

/// Spreads an index over 64 bits (the last step of SplitMix64).
const fn mix(index: u64) -> u64 {
    let hash = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// So many ticks are that part of the pages.
pub(super) const fn ticks(hundredths: u32) -> u16 {
    (TICKS * hundredths / 100) as u16
}

impl Ghosts {
    /// Bytes for each page.
    pub(super) const BYTES: usize = 2 * size_of::<u32>();

    pub(super) fn new(pages: usize) -> Result<Self, Error> {
        let tick = (pages as u32 / TICKS).max(1);
        Ok(Self { places: filled(pages * 2, |_| 0)?, evicted: [0; 2], tick })
    }

    fn now(&self, main: bool) -> u16 {
        (self.evicted[usize::from(main)] / self.tick) as u16
    }

    /// An index's place, and the mark that it has there.
    fn place(&self, index: u64) -> (usize, u32) {
        let hash = mix(index);
        let at = (u64::from(hash as u32) * self.places.len() as u64) >> 32;
        (at as usize, (hash >> 49) as u32)
    }

    /// A page left a queue.
    pub(super) fn put(&mut self, index: u64, main: bool) {
        let evicted = &mut self.evicted[usize::from(main)];
        *evicted = evicted.wrapping_add(1);
        let (at, mark) = self.place(index);
        self.places[at] = mark << 17 | u32::from(main) << 16 | u32::from(self.now(main));
    }

    /// Takes a page's ghost, if it is still there.
    pub(super) fn take(&mut self, index: u64) -> Option<Ghost> {
        let (at, mark) = self.place(index);
        let place = self.places[at];
        if place == 0 || place >> 17 != mark {
            return None;
        }
        self.places[at] = 0;
        let main = place >> 16 & 1 != 0;
        Some(Ghost { main, age: self.now(main).wrapping_sub(place as u16) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ghost_knows_its_queue_and_its_age_and_is_taken_once() {
        let mut ghosts = Ghosts::new(4096).unwrap();
        ghosts.put(7, false);
        ghosts.put(9, true);
        (0..400).for_each(|at| ghosts.put(1_000_000 + at, false));
        assert_eq!(ghosts.take(7), Some(Ghost { main: false, age: 100 }));
        assert_eq!(ghosts.take(9), Some(Ghost { main: true, age: 0 }));
        assert_eq!((ghosts.take(7), ghosts.take(8)), (None, None));
    }

    /// Of ghosts as many as pages, most are there.
    #[test]
    fn few_are_displaced() {
        let mut ghosts = Ghosts::new(1000).unwrap();
        (0..1000).for_each(|at| ghosts.put(at, false));
        let there = (0..1000).filter(|at| ghosts.take(*at).is_some()).count();
        assert!((700..1000).contains(&there), "{there}");
    }
}
