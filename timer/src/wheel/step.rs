//! A step: what is due goes to the list of those that are due, and full slots are moved down ahead of time.
//!
//! The clock goes no further than the first slot that has not been looked at, so a node's slot means the same granule for as long as
//! the node is in it, whatever the jump, and a step that ended at its limit is taken up by the next.

use super::broken::{Defect, is};
use super::levels;
use super::slots::Place;
use super::{Step, Wheel};

/// Nodes that a step touches at most.
pub const TOUCHED: usize = 64;
/// Nodes of a slot that a step moves down ahead of time.
const SLICE: usize = 32;

impl Wheel {
    /// Moves what is due at `now`, in nanoseconds, to the list that [`Wheel::pop_due`] takes from, and some of what will have to be
    /// looked at soon to where it costs less. Touches 64 nodes at most; if it says that there is more, something that is due may still
    /// be in the wheel: in a slot whose earliest was removed nobody knows before it is looked at. A `now` before the wheel's clock is taken for the clock.
    ///
    /// What is due at the same step comes in no particular order.
    pub fn step(&mut self, now: u64) -> Step {
        let mut target = self.ticks.of_now(now);
        if !is(Defect::ClockFollows) {
            target = target.max(self.clock);
        }
        if self.overdue.is_empty() && self.next > target {
            self.clock = target;
            return Step { touched: 0, more: false };
        }
        let most = if is(Defect::Unbounded) { usize::MAX } else { TOUCHED };
        let mut left = most;
        // Neither those that come too late nor those in the slots can keep the others from going on.
        self.take_overdue(&mut left, TOUCHED / 2);
        let in_slots = self.take_slots(&mut left, target);
        self.take_overdue(&mut left, TOUCHED);
        let more = in_slots || !self.overdue.is_empty();
        if !more {
            self.clock = target;
            self.move_ahead(&mut left);
        }
        self.next = self.event();
        Step { touched: most - left, more }
    }

    fn take_overdue(&mut self, left: &mut usize, most: usize) {
        for _ in 0..most.min(*left) {
            let Some(node) = self.overdue.pop() else { return };
            self.due.push(node);
            *left -= 1;
        }
    }

    /// Whether anything due is left.
    fn take_slots(&mut self, left: &mut usize, target: u64) -> bool {
        while let Some((low, place)) = self.slots.earliest(self.clock).filter(|(low, _)| *low <= target) {
            if *left == 0 {
                return true;
            }
            self.clock = self.clock.max(low);
            while *left > 0 {
                let Some(node) = self.slots.pop(place) else { break };
                *left -= 1;
                let tick = self.ticks.of_deadline(node.deadline());
                if tick <= target {
                    self.due.push(node);
                } else {
                    self.cascaded += 1;
                    self.slots.link(node, self.slots.place(self.clock, tick), tick);
                }
            }
        }
        false
    }

    /// Moves a slice of the first full slot of each level on which it is time, the lowest first: they are needed first.
    fn move_ahead(&mut self, left: &mut usize) {
        for level in 1..self.paced.len() {
            let Some(place) = self.slots.full_of(level, self.clock) else { continue };
            if self.ahead(place) > self.clock {
                continue;
            }
            let slice = SLICE.min(*left);
            for _ in 0..slice {
                let Some(node) = self.slots.pop(place) else { break };
                *left -= 1;
                self.cascaded += 1;
                let tick = self.ticks.of_deadline(node.deadline());
                self.slots.link(node, self.slots.place(self.clock, tick), tick);
            }
            self.paced[level] = self.clock.saturating_add(self.pace(place));
        }
    }

    /// Ticks until the next slice of a slot: it should be done when its granule begins.
    fn pace(&self, place: Place) -> u64 {
        let left = levels::start(place.level, place.granule).saturating_sub(self.clock);
        let slices = u64::from(self.slots.count(place)).div_ceil(SLICE as u64) + 1;
        (left / slices).max(1)
    }

    /// The first tick at which a full slot can be moved down, and should.
    #[inline]
    pub(super) fn ahead(&self, place: Place) -> u64 {
        levels::open(place.level, place.granule).max(self.paced[place.level])
    }

    /// The first tick at which a step has something to do, `u64::MAX` if none has.
    pub(super) fn event(&self) -> u64 {
        if !self.overdue.is_empty() {
            return self.clock;
        }
        let due = self.slots.earliest(self.clock).map_or(u64::MAX, |(low, _)| low);
        if is(Defect::NoEventAhead) {
            return due;
        }
        let later = self.clock.saturating_add(1);
        self.slots.full(self.clock).map(|place| self.ahead(place).max(later)).fold(due, u64::min)
    }
}
