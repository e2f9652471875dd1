//! The virtual heap: ranges of addresses, which it never touches. Bottom half and task. Rank: [`RANK`].
//!
//! A sorted list of free ranges in a fixed place, first fit: what asks for address space is rare and large (stacks, mapped pages), and a
//! list that cannot grow needs no heap of its own. A freed range that finds the list full is kept out of use, and counted.

use core::fmt;
use core::ops::Range;

use arrayvec::ArrayVec;

use crate::broken::{self, Hazard};
use crate::context::NotHardIrq;
use crate::sync::{IrqSpinLock, Rank};

/// Rank of the list's lock: outside that of the frames and of the page tables.
const RANK: Rank = Rank::new(53);

/// Free ranges that are told apart.
const MOST: usize = 128;

/// A range of addresses that its holder alone may use. [`Virtual::free`] takes it back.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a range that is dropped is lost"]
pub struct Addresses {
    start: u64,
    bytes: u64,
}

impl Addresses {
    /// The first address.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

struct Free {
    /// Sorted, apart from each other, none empty.
    ranges: ArrayVec<Range<u64>, MOST>,
    lost: u64,
}

/// See the module.
pub struct Virtual(IrqSpinLock<Free>);

impl fmt::Debug for Virtual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Virtual").finish_non_exhaustive()
    }
}

impl Virtual {
    /// A heap without addresses.
    pub const fn new() -> Self {
        Self(IrqSpinLock::new(RANK, Free { ranges: ArrayVec::new_const(), lost: 0 }))
    }

    /// Adds a range that nobody uses. `false` if it overlaps a free one, is empty, or the list is full.
    pub fn add(&self, range: Range<u64>) -> bool {
        !range.is_empty() && self.0.lock().insert(range)
    }

    /// Allocates `bytes` addresses, the first a multiple of `align` (a power of two).
    pub fn allocate(&self, _cx: &impl NotHardIrq, bytes: u64, align: u64) -> Option<Addresses> {
        if bytes == 0 || !align.is_power_of_two() || crate::heap::strikes() {
            return None;
        }
        let mut free = self.0.lock();
        let (at, start) = free.ranges.iter().enumerate().find_map(|(at, range)| {
            let align = if broken::is(Hazard::AlignmentForgotten) { 1 } else { align };
            let start = range.start.checked_next_multiple_of(align)?;
            (start.checked_add(bytes)? <= range.end).then_some((at, start))
        })?;
        let range = free.ranges[at].clone();
        let (before, after) = (range.start..start, start + bytes..range.end);
        match (before.is_empty(), after.is_empty()) {
            (true, true) => drop(free.ranges.remove(at)),
            (true, false) => free.ranges[at] = after,
            (false, true) => free.ranges[at] = before,
            // One becomes two.
            (false, false) => {
                free.ranges.try_insert(at + 1, after).ok()?;
                free.ranges[at] = before;
            }
        }
        Some(Addresses { start, bytes })
    }

    /// Takes a range back.
    pub fn free(&self, _cx: &impl NotHardIrq, addresses: Addresses) {
        let range = addresses.start..addresses.start + addresses.bytes;
        let mut free = self.0.lock();
        if !free.insert(range) {
            free.lost += addresses.bytes;
        }
    }

    /// Addresses that are free, and addresses that were lost because the list was full.
    pub fn bytes(&self) -> (u64, u64) {
        let free = self.0.lock();
        (free.ranges.iter().map(|range| range.end - range.start).sum(), free.lost)
    }
}

impl Default for Virtual {
    fn default() -> Self {
        Self::new()
    }
}

impl Free {
    fn insert(&mut self, range: Range<u64>) -> bool {
        let at = self.ranges.partition_point(|other| other.start < range.start);
        let before = at.checked_sub(1).and_then(|at| self.ranges.get(at)).map(|before| before.end);
        let after = self.ranges.get(at).map(|after| after.start);
        if before.is_some_and(|end| end > range.start) || after.is_some_and(|start| start < range.end) {
            return false;
        }
        match (before == Some(range.start), after == Some(range.end)) {
            (true, true) => {
                self.ranges[at - 1].end = self.ranges[at].end;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].end = range.end,
            (false, true) => self.ranges[at].start = range.start,
            (false, false) => return self.ranges.try_insert(at, range).is_ok(),
        }
        true
    }
}
