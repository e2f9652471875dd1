//! A wheel and an ordered map that are told the same things, and whatever the two disagree on.

use std::collections::{BTreeMap, BTreeSet};

use super::arena::Arena;
use crate::wheel::{TOUCHED, Wheel};

/// Nodes of a pair.
pub(super) const NODES: usize = 256;

/// The two.
pub(super) struct Pair {
    pub(super) wheel: Wheel,
    arena: Arena,
    shift: u32,
    /// The latest time that it was stepped at.
    now: u64,
    /// By the time at which they have to be due: their deadline rounded up to a tick, or the time of their arrival.
    waiting: BTreeSet<(u64, usize)>,
    /// Where each node is: deadline and time to be due.
    nodes: BTreeMap<usize, Armed>,
    due: BTreeSet<usize>,
    /// By the last step.
    touched: usize,
    /// The wheel may have an event for what was removed.
    removed: bool,
}

#[derive(Clone, Copy)]
struct Armed {
    deadline: u64,
    at: u64,
}

impl Pair {
    pub(super) fn new(now: u64, shift: u32) -> Self {
        Self {
            wheel: Wheel::new(now, shift),
            arena: Arena::new(NODES),
            shift,
            now,
            waiting: BTreeSet::new(),
            nodes: BTreeMap::new(),
            due: BTreeSet::new(),
            touched: 0,
            removed: false,
        }
    }

    /// The end of the tick that `time` is in, unless it is where a tick begins. The last tick ends with time.
    fn rounded(&self, time: u64) -> u64 {
        let last = u64::MAX >> self.shift << self.shift;
        let tick = 1_u128 << self.shift;
        let rounded = u128::from(time).div_ceil(tick) * tick;
        u64::try_from(rounded).ok().filter(|&time| time < last).unwrap_or(u64::MAX)
    }

    pub(super) fn insert(&mut self, number: usize, deadline: u64) {
        if self.nodes.contains_key(&number) {
            self.remove(number);
        }
        let before = self.wheel.next_event();
        // SAFETY: the arena's nodes stay, and it is in no wheel.
        let earlier = unsafe { self.wheel.insert(self.arena.node(number), deadline) };
        let at = self.rounded(deadline).max(self.wheel.clock());
        self.nodes.insert(number, Armed { deadline, at });
        self.waiting.insert((at, number));
        let after = self.wheel.next_event();
        assert!(after.is_some_and(|after| before.is_none_or(|before| after <= before)), "the next event went back");
        let became = before.is_none_or(|before| after.is_some_and(|after| after < before));
        assert!(earlier || !became, "the next event became earlier and nobody was told");
        self.check();
    }

    pub(super) fn remove(&mut self, number: usize) {
        let Some(armed) = self.nodes.remove(&number) else { return };
        let waited = self.waiting.remove(&(armed.at, number));
        assert!(waited != self.due.remove(&number));
        // SAFETY: it is in this wheel.
        unsafe { self.wheel.remove(self.arena.node(number)) };
        self.removed = true;
        self.check();
    }

    /// One step, and what it found. Whether there is more.
    pub(super) fn step(&mut self, now: u64) -> bool {
        self.now = self.now.max(now);
        let clock = self.wheel.clock();
        let step = self.wheel.step(now);
        assert!(self.wheel.clock() >= clock, "the clock went back from {clock} to {}", self.wheel.clock());
        self.touched = step.touched;
        assert!(step.touched <= TOUCHED, "a step touched {} nodes", step.touched);
        self.collect();
        let left = self.waiting.first().filter(|&&(at, _)| at <= self.now);
        if step.more {
            assert!(step.touched > 0, "there is more, and nothing was done");
        } else {
            assert!(left.is_none(), "late or lost: {:?} is not due at {}", left.map(|&(at, _)| at), self.now);
            let next = self.wheel.next_event();
            assert!(
                next.is_none_or(|next| next > now.min(u64::MAX - 1)),
                "an event that is past after a step: {next:?}"
            );
        }
        self.check();
        step.more
    }

    /// Steps until there is no more. How many nodes they touched.
    pub(super) fn catch_up(&mut self, now: u64) -> usize {
        let (mut steps, mut touched) = (1, 0);
        while self.step(now) {
            touched += self.touched;
            steps += 1;
            // Each step moves 64 nodes down at least, and each node can go down through all levels.
            assert!(steps <= NODES, "steps without end");
        }
        touched + self.touched
    }

    /// What the wheel has made due is taken down, and stays on its list.
    fn collect(&mut self) {
        let numbers: Vec<_> = self.waiting.iter().map(|&(_, number)| number).collect();
        for number in numbers {
            // SAFETY: a node of the arena; nobody else has it.
            let links = unsafe { self.arena.node(number).as_ref() };
            if links.is_due() {
                let armed = self.nodes[&number];
                assert!(armed.deadline <= self.now, "early: {} is due at {}", armed.deadline, self.now);
                self.waiting.remove(&(armed.at, number));
                self.due.insert(number);
            }
        }
    }

    /// Takes one of those that are due: its number.
    #[cfg(test)]
    pub(super) fn pop_number(&mut self) -> Option<u64> {
        let numbers: Vec<_> = self.due.iter().copied().collect();
        self.pop()?;
        numbers.into_iter().find(|number| !self.due.contains(number)).map(|number| number as u64)
    }

    /// The earliest time at which one has to be due.
    pub(super) fn earliest(&self) -> Option<u64> {
        self.waiting.first().map(|&(at, _)| at)
    }

    /// Takes one of those that are due: when it had to be.
    pub(super) fn pop(&mut self) -> Option<u64> {
        let node = self.wheel.pop_due();
        assert_eq!(node.is_none(), self.due.is_empty(), "the list of those that are due");
        let number = self.arena.number(node?);
        assert!(self.due.remove(&number), "node {number} is due twice, or was removed");
        let armed = self.nodes.remove(&number).expect("it is armed");
        self.check();
        Some(armed.at)
    }

    pub(super) fn pop_all(&mut self) {
        while self.pop().is_some() {}
    }

    fn check(&mut self) {
        assert_eq!(self.wheel.armed(), self.nodes.len(), "how many are armed");
        let first = self.earliest();
        let next = self.wheel.next_event();
        assert_eq!(first.is_none(), next.is_none(), "an event without a node, or a node without an event: {next:?}");
        assert!(next <= first, "the next event {next:?} is later than the earliest, {first:?}");
    }

    /// From event to event until nothing waits: all are due exactly when they have to be.
    pub(super) fn run_out(&mut self) {
        let mut events = 0;
        while let Some(next) = self.wheel.next_event() {
            let touched = self.catch_up(next.max(self.now));
            assert!(touched > 0 || self.removed, "an event at which there was nothing to do: {next}");
            while let Some(at) = self.pop() {
                assert_eq!(at, self.now, "late: stepped at every event, and due after its tick");
            }
            events += 1;
            assert!(events < 100_000, "events without end");
        }
        assert!(self.nodes.is_empty());
    }
}

/// A generator whose numbers are the same each time (splitmix64).
#[cfg(test)]
pub(super) struct Random(pub(super) u64);

#[cfg(test)]
impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// As often small as large.
    pub(super) fn any_size(&mut self) -> u64 {
        let bits = self.below(65);
        if bits == 0 { 0 } else { self.next() >> (64 - bits) }
    }
}
