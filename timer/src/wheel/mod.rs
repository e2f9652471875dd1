//! The wheel: many deadlines, of which the earliest is known and each can go at once.
//!
//! After Varghese and Lauck (1987), with 64 slots on each level and levels that are eight times as coarse as the one below, as in Linux;
//! but exact: what is in a coarse slot is moved to a finer one before it is due, and ahead of time where a slot has many, so that no
//! step has much to do. See ADR-3.
//!
//! Times are nanoseconds of the caller's clock. The wheel counts ticks of 2^shift ns: a deadline is rounded up to the next tick, and
//! what is stepped at every [`Wheel::next_event`] is due at that tick, neither before nor after. Between equal deadlines, and between
//! those that one late step finds due, there is no order.
//!
//! Contexts: any. A plain struct: whoever shares it puts it, and the links of the nodes in it, behind one lock.

mod broken;
mod levels;
mod list;
mod slots;
mod step;

use core::ptr::NonNull;

pub(crate) use list::Line;
pub use list::Links;
pub use step::TOUCHED;

use broken::{Defect, is};
use levels::{MAX_LEVELS, Ticks};
use list::{DUE, NOWHERE, Node, OVERDUE, Queue};
use slots::{Left, Place, Slots};

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Step {
    /// Nodes that it touched: [`TOUCHED`] at most.
    pub touched: usize,
    /// Something that is due is still in the wheel: another step at the same time will find it.
    pub more: bool,
}

/// A timer wheel of nodes that belong to somebody else.
#[derive(Debug)]
pub struct Wheel {
    ticks: Ticks,
    /// Everything up to this tick has been looked at, and nothing after.
    clock: u64,
    /// The first tick at which a step has something to do; `u64::MAX` without a node.
    next: u64,
    /// Nodes in the slots, overdue or due.
    armed: usize,
    cascaded: u64,
    slots: Slots,
    /// Their time was past when they came.
    overdue: Queue,
    due: Queue,
    /// For each level, the tick before which no further slice is moved down.
    paced: [u64; MAX_LEVELS],
}

impl Wheel {
    /// An empty wheel at the time `now`, with a tick of 2^`tick_shift` nanoseconds. Allocates its slots, some 26 KiB.
    ///
    /// # Panics
    /// If `tick_shift` is more than 32.
    pub fn new(now: u64, tick_shift: u32) -> Self {
        let ticks = Ticks::new(tick_shift);
        Self {
            ticks,
            clock: ticks.of_now(now),
            next: u64::MAX,
            armed: 0,
            cascaded: 0,
            slots: Slots::new(tick_shift),
            overdue: Queue::new(OVERDUE),
            due: Queue::new(DUE),
            paced: [0; MAX_LEVELS],
        }
    }

    /// Puts in a node that will be due at `deadline`, in nanoseconds: at the next step if that is past. Whether
    /// [`Wheel::next_event`] became earlier.
    ///
    /// # Safety
    /// The node is in no wheel. Until it is taken out ([`Wheel::remove`], [`Wheel::pop_due`]) it stays in place, and nobody reads or
    /// writes its links but whoever has exclusive access to this wheel.
    #[inline]
    pub unsafe fn insert(&mut self, node: NonNull<Links>, deadline: u64) -> bool {
        // SAFETY: by the caller, for as long as it is linked; what is not linked is forgotten here.
        let node = unsafe { Node::new(node) };
        debug_assert!(node.place() == NOWHERE, "the node is in a wheel");
        node.set_deadline(deadline);
        self.armed += 1;
        let tick = self.ticks.of_deadline(deadline);
        let mut event = if is(Defect::EventAsAsked) { self.ticks.of_now(deadline) } else { tick };
        if self.is_past(tick) {
            self.overdue.push(node);
            event = self.clock;
        } else {
            let place = self.slots.place(self.clock, tick);
            if self.slots.link(node, place, tick) && place.level > 0 {
                event = event.min(self.ahead(place));
            }
        }
        let earlier = event < self.next || event == u64::MAX;
        self.next = self.next.min(event);
        earlier
    }

    #[inline]
    fn is_past(&self, tick: u64) -> bool {
        if is(Defect::SignedTicks) {
            return (tick as i32).wrapping_sub(self.clock as i32) <= 0;
        }
        tick <= self.clock
    }

    /// Takes out a node.
    ///
    /// # Safety
    /// It is in this wheel, or on its list of those that are due.
    #[inline]
    pub unsafe fn remove(&mut self, node: NonNull<Links>) {
        // SAFETY: by the caller: it was inserted here and has not been taken out since.
        let node = unsafe { Node::new(node) };
        // An event that went with it.
        let mut event = u64::MAX;
        let place = if is(Defect::PlaceFromDeadline) { self.place_from(node.deadline()) } else { node.place() };
        match place {
            NOWHERE => return debug_assert!(false, "the node is in no wheel"),
            DUE => self.due.unlink(node),
            OVERDUE => {
                self.overdue.unlink(node);
                event = self.clock;
            }
            index => match self.slots.unlink(node, index) {
                Left::Some => {}
                Left::Few { level } => {
                    let granule = levels::granule(level, self.ticks.of_deadline(node.deadline()));
                    event = self.ahead(Place { level, granule });
                }
                Left::None { low } => event = low,
            },
        }
        self.armed -= 1;
        if event <= self.next {
            self.next = self.event();
        }
    }

    /// What [`Defect::PlaceFromDeadline`] believes.
    fn place_from(&self, deadline: u64) -> u16 {
        let tick = self.ticks.of_deadline(deadline);
        if tick <= self.clock { OVERDUE } else { self.slots.place(self.clock, tick).index() as u16 }
    }

    /// When a step will have something to do, in nanoseconds: the earliest deadline, rounded up to its tick, or an earlier time at which
    /// nodes should be moved. Never later than that; earlier only after the earliest of several that share a slot was removed. A time
    /// that is past means now. What is on the list of those that are due is no event any more.
    #[inline]
    pub fn next_event(&self) -> Option<u64> {
        (self.next < u64::MAX || !self.idle()).then(|| self.ticks.nanos(self.next))
    }

    /// Nothing to wait for.
    fn idle(&self) -> bool {
        self.overdue.is_empty() && self.slots.is_empty()
    }

    /// [`Wheel::next_event`], looked at again: exact after removals too, unless many share the earliest slot. Touches
    /// [`TOUCHED`] nodes at most; for whoever is about to go idle.
    pub fn earliest(&mut self) -> Option<u64> {
        let (ticks, mut left) = (self.ticks, TOUCHED);
        while let Some((_, place)) = self.slots.earliest(self.clock) {
            let Some(rest) = left.checked_sub(self.slots.count(place) as usize) else { break };
            left = rest;
            if !self.slots.tighten(place, |node| ticks.of_deadline(node.deadline())) {
                break;
            }
        }
        self.next = self.event();
        self.next_event()
    }

    /// Takes the first of the list of those that are due.
    #[inline]
    pub fn pop_due(&mut self) -> Option<NonNull<Links>> {
        let node = self.due.pop()?;
        self.armed -= 1;
        Some(node.address())
    }

    /// Whether the list of those that are due is not empty.
    #[inline]
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// How many nodes are in the wheel or on its list of those that are due.
    #[inline]
    pub fn armed(&self) -> usize {
        self.armed
    }

    /// The time up to which everything that was due has been found, in nanoseconds. Never goes back.
    #[inline]
    pub fn clock(&self) -> u64 {
        self.ticks.nanos(self.clock)
    }

    /// How often a node was moved from a slot to a finer one.
    #[inline]
    pub fn cascaded(&self) -> u64 {
        self.cascaded
    }

    /// Of all times from `deadline` to `deadline + slack`, the one with the most trailing zero bits: what may be due together is.
    #[inline]
    pub const fn align(deadline: u64, slack: u64) -> u64 {
        levels::align(deadline, slack)
    }
}

#[cfg(any(test, feature = "fuzz"))]
mod tests;

/// The body of the fuzz target: does what bytes say with a wheel and an ordered map.
#[cfg(feature = "fuzz")]
pub use tests::script::run as fuzz;
