//! The slots of all levels: which nodes they hold, and what can be said of them without looking at any.

use alloc::boxed::Box;
use alloc::vec;

use super::broken::{Defect, is};
use super::levels::{self, MAX_LEVELS, SLOTS};
use super::list::{List, Node};

/// A slot with more nodes than this is moved down ahead of time.
pub(super) const MANY: u32 = 8;

/// The nodes of one granule of a level.
#[derive(Debug, Clone, Copy)]
struct Slot {
    list: List,
    /// No node's tick is less.
    low: u64,
    count: u32,
}

/// The slots, in the order of places.
#[derive(Debug)]
pub(super) struct Slots {
    /// The highest level.
    top: usize,
    slots: Box<[Slot]>,
    /// Levels with a node.
    in_use: u32,
    /// For each level, the slots with a node.
    occupied: [u64; MAX_LEVELS],
    /// For each level, the slots with many.
    full: [u64; MAX_LEVELS],
}

/// A slot that has nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) level: usize,
    pub(super) granule: u64,
}

impl Place {
    /// Its number among all slots.
    #[inline]
    pub(super) fn index(self) -> usize {
        self.level * SLOTS + levels::slot(self.granule)
    }
}

/// What a slot has left after a node was taken out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Left {
    /// As many as before, but for one.
    Some,
    /// No longer many.
    Few { level: usize },
    /// Nothing; its lower bound was this.
    None { low: u64 },
}

impl Slots {
    pub(super) fn new(shift: u32) -> Self {
        let empty = Slot { list: List::EMPTY, low: u64::MAX, count: 0 };
        let levels = if is(Defect::TooFewLevels) { 10 } else { levels::levels(shift) };
        let slots = vec![empty; levels * SLOTS].into_boxed_slice();
        Self { top: levels - 1, slots, in_use: 0, occupied: [0; MAX_LEVELS], full: [0; MAX_LEVELS] }
    }

    /// Where a tick after the clock's belongs.
    #[inline]
    pub(super) fn place(&self, clock: u64, tick: u64) -> Place {
        let level = levels::level(clock, tick, self.top);
        Place { level, granule: levels::granule(level, tick) }
    }

    /// Puts in a node that is in no list. Whether its slot has many now, and had not.
    #[inline]
    pub(super) fn link(&mut self, node: Node, place: Place, tick: u64) -> bool {
        let index = place.index();
        let slot = &mut self.slots[index];
        slot.list.push(node, index as u16);
        slot.low = slot.low.min(tick);
        slot.count += 1;
        let count = slot.count;
        if count == 1 {
            self.occupied[place.level] |= bit(index);
            self.in_use |= 1 << place.level;
        }
        if count == MANY + 1 {
            self.full[place.level] |= bit(index);
        }
        count == MANY + 1
    }

    /// Takes out a node that is in the slot with this index.
    #[inline]
    pub(super) fn unlink(&mut self, node: Node, index: u16) -> Left {
        let index = usize::from(index);
        let slot = &mut self.slots[index];
        slot.list.unlink(node);
        slot.count -= 1;
        let level = index / SLOTS;
        if slot.count == MANY {
            self.full[level] &= !bit(index);
            return Left::Few { level };
        }
        if slot.count > 0 {
            return Left::Some;
        }
        let low = core::mem::replace(&mut slot.low, u64::MAX);
        self.occupied[level] &= !bit(index);
        if self.occupied[level] == 0 {
            self.in_use &= !(1 << level);
        }
        Left::None { low }
    }

    /// Takes out the first node of a slot.
    #[inline]
    pub(super) fn pop(&mut self, place: Place) -> Option<Node> {
        let index = place.index();
        let node = self.slots[index].list.first()?;
        self.unlink(node, index as u16);
        Some(node)
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.in_use == 0
    }

    #[inline]
    pub(super) fn count(&self, place: Place) -> u32 {
        self.slots[place.index()].count
    }

    /// The slot with the least lower bound, and that bound. No node's tick is less.
    #[inline]
    pub(super) fn earliest(&self, clock: u64) -> Option<(u64, Place)> {
        let first = |level| {
            let granule = levels::first(level, clock, self.occupied[level])?;
            let place = Place { level, granule };
            if is(Defect::EventOfSlot) {
                return Some((levels::start(level, granule + 1), place));
            }
            Some((self.slots[place.index()].low, place))
        };
        ones(self.in_use).filter_map(first).min_by_key(|(low, _)| *low)
    }

    /// For each level above the lowest that has one, the first slot with many nodes, from the lowest on.
    #[inline]
    pub(super) fn full(&self, clock: u64) -> impl Iterator<Item = Place> + '_ {
        ones(self.in_use & !1).filter_map(move |level| {
            let granule = levels::first(level, clock, self.full[level])?;
            Some(Place { level, granule })
        })
    }

    /// The first slot of a level with many nodes.
    #[inline]
    pub(super) fn full_of(&self, level: usize, clock: u64) -> Option<Place> {
        levels::first(level, clock, self.full[level]).map(|granule| Place { level, granule })
    }

    /// Looks at the nodes of a slot for the exact bound. Whether that is another.
    pub(super) fn tighten(&mut self, place: Place, tick: impl Fn(Node) -> u64) -> bool {
        let slot = &mut self.slots[place.index()];
        let low = slot.list.iter().map(tick).min().unwrap_or(slot.low);
        core::mem::replace(&mut slot.low, low) != low
    }
}

/// The bit of a slot in its level's map.
#[inline]
const fn bit(index: usize) -> u64 {
    1 << (index % SLOTS)
}

/// The numbers of the bits that are set, from the least on.
#[inline]
pub(super) fn ones(bits: u32) -> impl Iterator<Item = usize> {
    let mut left = bits;
    core::iter::from_fn(move || {
        let bit = left.checked_ilog2().map(|_| left.trailing_zeros())?;
        left &= left - 1;
        Some(bit as usize)
    })
}
