//! The map of physical memory: which bytes are RAM that we may use.
//!
//! Source: Xen `hvm/start_info.h` (`hvm_memmap_table_entry`) and the ACPI specification 6.5, 15.4 (types).
//! Firmware maps overlap, come unsorted and name empty ranges; this map is sorted, disjoint, made of whole
//! pages, and where two entries disagree the byte is not RAM.

use arrayvec::ArrayVec;

/// Bytes of a page frame.
pub const FRAME: u64 = 4096;
/// Ranges that the map can hold. What does not fit is left unused.
pub const CAPACITY: usize = 128;

/// A range of physical addresses, in bytes, `end` exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl Range {
    /// Bytes in the range.
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// The whole frames inside.
    fn inward(self) -> Self {
        Self { start: self.start.checked_next_multiple_of(FRAME).unwrap_or(u64::MAX), end: self.end & !(FRAME - 1) }
    }

    /// The whole frames that it touches.
    fn outward(self) -> Self {
        Self { start: self.start & !(FRAME - 1), end: self.end.checked_next_multiple_of(FRAME).unwrap_or(!(FRAME - 1)) }
    }
}

/// Usable RAM: sorted, disjoint ranges of whole frames.
#[derive(Clone, Debug, Default)]
pub struct MemoryMap {
    ranges: ArrayVec<Range, CAPACITY>,
}

impl MemoryMap {
    /// A map with no memory in it.
    pub const fn empty() -> Self {
        Self { ranges: ArrayVec::new_const() }
    }

    /// Makes the map from a firmware's entries: the RAM ones are added, then all others taken away.
    ///
    /// The iterator yields ranges and whether each is usable RAM. An entry whose end wraps is cut at the top.
    pub fn from_entries(entries: impl Iterator<Item = (Range, bool)> + Clone) -> Self {
        let mut map = Self::empty();
        for (range, _) in entries.clone().filter(|entry| entry.1) {
            map.add(range);
        }
        for (range, _) in entries.filter(|entry| !entry.1) {
            map.remove(range);
        }
        map
    }

    /// Adds the whole frames inside `range`. If the map is full the range stays unused.
    pub fn add(&mut self, range: Range) {
        let mut new = range.inward();
        if new.is_empty() {
            return;
        }
        // Swallow all that overlap or touch, then insert in order.
        self.ranges.retain(|old| {
            let apart = old.end < new.start || old.start > new.end;
            if !apart {
                new = Range { start: new.start.min(old.start), end: new.end.max(old.end) };
            }
            apart
        });
        let at = self.ranges.partition_point(|old| old.start < new.start);
        let _ = self.ranges.try_insert(at, new);
    }

    /// Takes away every frame that `range` touches. If a split does not fit, the smaller part is given up.
    pub fn remove(&mut self, range: Range) {
        if range.is_empty() {
            return;
        }
        let gone = range.outward();
        let mut index = 0;
        while let Some(&old) = self.ranges.get(index) {
            if old.end <= gone.start || old.start >= gone.end {
                index += 1;
                continue;
            }
            let below = Range { start: old.start, end: gone.start };
            let above = Range { start: gone.end, end: old.end };
            match (below.is_empty(), above.is_empty()) {
                (true, true) => {
                    self.ranges.remove(index);
                }
                (false, true) => self.ranges[index] = below,
                (true, false) => self.ranges[index] = above,
                (false, false) if self.ranges.is_full() => {
                    self.ranges[index] = if below.len() >= above.len() { below } else { above };
                }
                (false, false) => {
                    self.ranges[index] = below;
                    self.ranges.insert(index + 1, above);
                }
            }
        }
    }

    /// The ranges, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = Range> + Clone + '_ {
        self.ranges.iter().copied()
    }

    /// Bytes of usable RAM.
    pub fn bytes(&self) -> u64 {
        self.iter().map(|range| range.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn range(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    fn ranges(map: &MemoryMap) -> Vec<(u64, u64)> {
        map.iter().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn reserved_wins_over_ram_in_any_order() {
        let entries = [(range(0x4000, 0x6000), false), (range(0, 0x10000), true), (range(0x8000, 0x9000), true)];
        let map = MemoryMap::from_entries(entries.iter().copied());
        assert_eq!(ranges(&map), [(0, 0x4000), (0x6000, 0x10000)]);
    }

    #[test]
    fn partial_frames_are_given_up() {
        let entries = [(range(0x100, 0x3f00), true), (range(0x2100, 0x2200), false)];
        assert_eq!(ranges(&MemoryMap::from_entries(entries.iter().copied())), [(0x1000, 0x2000)]);
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let mut map = MemoryMap::empty();
        for start in [0x3000, 0x1000, 0x2000] {
            map.add(range(start, start + 0x1000));
        }
        assert_eq!(ranges(&map), [(0x1000, 0x4000)]);
    }

    #[test]
    fn inverted_wrapping_and_top_ranges_do_no_harm() {
        let entries = [
            (range(u64::MAX - 5, u64::MAX), true),
            (range(0x5000, 0x1000), true),
            (range(u64::MAX - 0x1fff, u64::MAX), true),
            (range(u64::MAX - 0x10, u64::MAX), false),
            (range(0x9000, 0x2000), false),
        ];
        let map = MemoryMap::from_entries(entries.iter().copied());
        assert!(map.iter().all(|range| range.start < range.end), "{map:?}");
    }

    #[test]
    fn a_full_map_loses_memory_but_never_gains_reserved_bytes() {
        let mut map = MemoryMap::empty();
        for index in 0..2 * CAPACITY as u64 {
            map.add(range(index * 0x4000, index * 0x4000 + 0x3000));
        }
        for index in 0..2 * CAPACITY as u64 {
            map.remove(range(index * 0x4000 + 0x1000, index * 0x4000 + 0x2000));
        }
        assert!(map.iter().all(|range| range.len() == 0x1000), "{map:?}");
        assert_eq!(map.bytes(), CAPACITY as u64 * 0x1000);
    }

    /// Against a plain model, one flag per frame, over pseudo-random maps.
    #[test]
    fn random_maps_equal_a_flag_per_frame() {
        let mut state = 1u64;
        let mut next = |bound: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % bound
        };
        for _ in 0..2000 {
            let mut map = MemoryMap::empty();
            let mut model = [false; 64];
            for _ in 0..20 {
                let start = next(64);
                let end = start + next(64 - start) + 1;
                let keep = next(2) == 0;
                model[start as usize..end as usize].fill(keep);
                let bytes = range(start * FRAME, end * FRAME);
                if keep { map.add(bytes) } else { map.remove(bytes) }
            }
            let mut flags = [false; 64];
            for range in map.iter() {
                flags[(range.start / FRAME) as usize..(range.end / FRAME) as usize].fill(true);
            }
            assert_eq!(flags, model);
            assert!(map.ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{map:?}");
        }
    }
}
