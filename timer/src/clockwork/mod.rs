//! The step machine: everything that happens to a callout, as functions on a plain struct that lies under W, the lock of one CPU's wheel.
//!
//! An executor takes these steps: [`take_due`](Clockwork::take_due) moves what is due off the wheel, [`commit`](Clockwork::commit) takes the
//! first of it, [`enter`](Clockwork::enter) begins its handler, [`leave`](Clockwork::leave) notes that it returned,
//! [`finish`](Clockwork::finish) ends the run. Clients [`start`](Clockwork::start), [`stop`](Clockwork::stop) and
//! [drain](Clockwork::begin_drain). Each is one critical section; between any two anything may happen, in tests too, which call
//! the steps in the order of a historic race.
//!
//! The struct knows no clock, no CPU and no other wheel. What is to be done once W is free again, it notes: [`Todo`].

mod client;
mod run;

use core::mem;

use undercroft_hal::context::Kind;

use crate::completion::{self, Waiters};
use crate::node::{Dead, Key};
use crate::shelf::Shelf;
use crate::stats::Stats;

pub(crate) use client::{Request, Rule, Transit};

/// After how many nanoseconds a lock that was held is tried again.
pub(crate) const RETRY: u64 = 10_000;
/// How many of them are, at a time.
const RETRIES: usize = 32;

/// See the module.
pub(crate) struct Clockwork {
    pub(crate) shelf: Shelf,
    /// When callouts whose lock was held are tried again.
    retry_at: Option<u64>,
    /// Completions to run here, as bottom halves.
    completed: Waiters,
    /// Nodes to free here, in a bottom half.
    dead: Option<Dead>,
    /// What the CPU's alarm is set to.
    pub(crate) alarm: Option<u64>,
    /// The alarm is not set to anything before: it goes off too often.
    pub(crate) not_before: u64,
    /// For how long it rested last, in nanoseconds.
    pub(crate) resting: u64,
    /// The alarm's handler is at work, and sets the alarm when it is done.
    pub(crate) serving: bool,
    /// The CPU has been kicked, and has not looked since.
    pub(crate) kicked: bool,
    /// How far the clock jumped, until somebody is told.
    pub(crate) jumped: Option<u64>,
    /// CPUs whose tasks wait for the end of a run here.
    waiting: u64,
    pub(crate) todo: Todo,
    stats: Stats,
}

/// What is to be done about an operation besides the operation itself.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Todo {
    /// The next event may be earlier than it was.
    pub(crate) alarm: bool,
    /// Levels whose executor has something to do: a bit for each.
    pub(crate) rouse: u8,
    /// CPUs whose tasks wait for something that has happened: a bit for each.
    pub(crate) wake: u64,
}

impl Todo {
    #[inline]
    pub(crate) const fn is_nothing(&self) -> bool {
        !self.alarm && self.rouse == 0 && self.wake == 0
    }
}

impl Clockwork {
    pub(crate) fn new(key: Key, now: u64) -> Self {
        Self {
            shelf: Shelf::new(key, now),
            retry_at: None,
            completed: None,
            dead: None,
            alarm: None,
            not_before: 0,
            resting: 0,
            serving: false,
            kicked: false,
            jumped: None,
            waiting: 0,
            todo: Todo::default(),
            stats: Stats::default(),
        }
    }

    /// What is to be done, once.
    #[inline]
    pub(crate) fn take_todo(&mut self) -> Todo {
        mem::take(&mut self.todo)
    }

    fn rouse(&mut self, levels: u8) {
        self.todo.rouse |= levels;
        // Hard interrupt handlers are roused by the alarm.
        self.todo.alarm |= levels & bit(Kind::HardIrq) != 0;
    }

    /// When the alarm has to go off; a time that is past means at once.
    pub(crate) fn next_event(&self) -> Option<u64> {
        let due = self.shelf.has_due(Kind::HardIrq).then_some(0);
        due.into_iter().chain(self.retry_at).chain(self.shelf.next_event()).min()
    }

    /// What the alarm is to be set to.
    pub(crate) fn wanted_alarm(&self) -> Option<u64> {
        self.next_event().map(|at| at.max(self.not_before))
    }

    /// Keeps a node for a bottom half to free.
    pub(crate) fn bury(&mut self, dead: Option<Dead>) {
        if let Some(dead) = dead {
            dead.push(&mut self.dead);
            self.rouse(bit(Kind::BottomHalf));
        }
    }

    /// Something to be freed, freed things first: when a completion runs, the handler is gone.
    pub(crate) fn take_dead(&mut self) -> Option<Dead> {
        Dead::pop(&mut self.dead)
    }

    pub(crate) fn take_completed(&mut self) -> Waiters {
        completion::pop(&mut self.completed)
    }

    pub(crate) fn has_housekeeping(&self) -> bool {
        self.dead.is_some() || self.completed.is_some() || self.jumped.is_some()
    }

    /// Puts completions in line to run here.
    pub(crate) fn complete(&mut self, waiters: Waiters) {
        if waiters.is_some() {
            completion::push_all(&mut self.completed, waiters);
            self.rouse(bit(Kind::BottomHalf));
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats { armed: self.shelf.armed() as u64, cascades: self.shelf.cascaded(), ..self.stats }
    }

    pub(crate) const fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }
}

/// A level's bit.
pub(crate) const fn bit(kind: Kind) -> u8 {
    1 << kind as u8
}
