//! Where a time belongs: ticks, levels and slots, as pure arithmetic.
//!
//! Time is counted in ticks of 2^shift nanoseconds. Level k has 64 slots; a slot holds a *granule*, 8^k ticks long and counted from time
//! zero. A tick is held by a level on which it is less than 63 granules away, so its granule is at most the 63rd after the clock's: no
//! two granules that may be in use at a time share a slot, however the clock moves up to the first of them.

use super::broken::{Defect, is};

/// Slots of a level.
pub(super) const SLOTS: usize = 64;
/// Each level is 2^3 times as coarse as the one below.
const COARSER: u32 = 3;
/// The largest shift: a tick of four seconds.
pub(super) const MAX_SHIFT: u32 = 32;
/// Levels of the finest tick.
pub(super) const MAX_LEVELS: usize = levels(0);

/// How many levels hold every tick.
pub(super) const fn levels(shift: u32) -> usize {
    let bits = 64 - shift;
    // 64 slots of the top level cover 2^(6 + 3 * top) ticks.
    (bits - 6).div_ceil(COARSER) as usize + 1
}

/// From nanoseconds to ticks and back.
///
/// The last tick is the end of time: only `u64::MAX` itself reaches it, and every deadline that would need a later one waits for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticks {
    shift: u32,
    /// A tick's nanoseconds but one.
    round: u64,
}

impl Ticks {
    pub(super) const fn new(shift: u32) -> Self {
        assert!(shift <= MAX_SHIFT, "a tick has at most 2^32 ns");
        Self { shift, round: (1 << shift) - 1 }
    }

    const fn last(self) -> u64 {
        u64::MAX >> self.shift
    }

    /// The first tick at which `deadline` has passed: rounded up, so that nothing is early.
    #[inline]
    pub(super) fn of_deadline(self, deadline: u64) -> u64 {
        let up = if is(Defect::RoundedDown) { 0 } else { self.round };
        // What is too late for a whole tick ends in the last.
        deadline.saturating_add(up) >> self.shift
    }

    /// The last tick that has begun at `now`.
    #[inline]
    pub(super) fn of_now(self, now: u64) -> u64 {
        if now == u64::MAX { self.last() } else { (now >> self.shift).min(self.last() - 1) }
    }

    /// When a tick begins.
    #[inline]
    pub(super) fn nanos(self, tick: u64) -> u64 {
        if tick >= self.last() { u64::MAX } else { tick << self.shift }
    }
}

/// The granule of a tick on a level.
#[inline]
pub(super) const fn granule(level: usize, tick: u64) -> u64 {
    tick >> (COARSER * level as u32)
}

/// How many ticks a granule has.
#[inline]
pub(super) const fn length(level: usize) -> u64 {
    1 << (COARSER * level as u32)
}

/// The tick at which a granule begins.
#[inline]
pub(super) const fn start(level: usize, granule: u64) -> u64 {
    granule << (COARSER * level as u32)
}

/// The first tick at which a granule should be moved down: half its length before it begins. Most of it fits two levels below then, and
/// all of it one below. Sooner, everything would have to be moved more often, and more that will be stopped before it is due.
#[inline]
pub(super) const fn open(level: usize, granule: u64) -> u64 {
    start(level, granule).saturating_sub(length(level) / 2)
}

/// The slot of a granule.
#[inline]
pub(super) const fn slot(granule: u64) -> usize {
    (granule % SLOTS as u64) as usize
}

/// By leading zeros of a distance.
const LEVELS: [u8; 64] = {
    let mut table = [0; 64];
    let mut zeros = 0;
    while zeros < 64 {
        table[zeros as usize] = (64 - zeros as u32).saturating_sub(6).div_ceil(COARSER) as u8;
        zeros += 1;
    }
    table
};

/// The level for a tick after the clock's: less than 63 granules away there, and more than 7 on any but the lowest. The top level has
/// slots for all granules that there are.
#[inline]
pub(super) fn level(clock: u64, tick: u64, top: usize) -> usize {
    debug_assert!(tick > clock);
    let distance = if is(Defect::ReachFromZero) { tick } else { tick - clock };
    // Less than 64 granules with 1/32 on top of it: then it is less than 63, and the end of it within 63 granules of the clock's.
    let more = distance.saturating_add(distance >> 5);
    usize::from(LEVELS[(more.leading_zeros() & 63) as usize]).min(top)
}

/// Of the slots in a bit map of a level, the granule of the first from the clock on.
#[inline]
pub(super) fn first(level: usize, clock: u64, slots: u64) -> Option<u64> {
    if slots == 0 {
        return None;
    }
    let now = granule(level, clock);
    if is(Defect::NotRotated) {
        return Some(now - now % SLOTS as u64 + u64::from(slots.trailing_zeros()));
    }
    Some(now + u64::from(slots.rotate_right(slot(now) as u32).trailing_zeros()))
}

/// Of all times from `deadline` to `deadline + slack`, the one with the most trailing zero bits.
pub(super) const fn align(deadline: u64, slack: u64) -> u64 {
    let latest = deadline.saturating_add(slack);
    let Some(before) = deadline.checked_sub(1) else { return 0 };
    // What both have in common above the highest bit in which they differ, and that bit: it is set in the greater.
    let highest = u64::BITS - 1 - (before ^ latest).leading_zeros();
    latest >> highest << highest
}
