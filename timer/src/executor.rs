//! Executors: one for each CPU and level, each doing one turn at a time.
//!
//! A turn is bounded in handlers and in time; what it leaves over is for the next, after others had theirs. A handler that unwinds ends its
//! own run and no more: what waits is on lists under the wheel's lock, never in an executor's hands (W-14).

use alloc::boxed::Box;

use undercroft_hal::context::Kind;

use crate::broken::{self, Hazard};
use crate::completion::Waiter;
use crate::expiry::Expiry;
use crate::level::Token;
use crate::next::Next;
use crate::node::{Dead, Flight, Gate, Ran};
use crate::port::Port;
use crate::shim::IrqOff;
use crate::stats::JUMP;
use crate::wheels::Wheels;

/// Handlers of one turn.
pub(crate) const BUDGET: usize = 16;
/// Nanoseconds after which a turn ends with the handler that runs.
const TURN: u64 = 500_000;
/// Rounds of the alarm's handler before it gives up for a while.
pub(crate) const ROUNDS: usize = 3;
/// For how long: doubled each time, in nanoseconds.
const SHORTEST_REST: u64 = 5_000;
pub(crate) const LONGEST_REST: u64 = 100_000;

/// What an attempt to run one came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// A handler, run or not.
    One,
    /// None of this level yet, but the wheel is not through.
    NotYet,
    Nothing,
}

impl<P: Port> Wheels<P> {
    /// A turn of the executor of `token`'s level on `cpu`. Whether there is more to do.
    pub(crate) fn turn(&self, cpu: usize, token: Token<'_>) -> bool {
        let again = self.again(cpu, token.kind());
        let began = self.port.now();
        let mut now = began;
        let mut left = BUDGET;
        while left > 0 {
            left -= usize::from(!broken::is(Hazard::EndlessTurn));
            if self.run_one(cpu, &token, now) == Found::Nothing {
                break;
            }
            now = self.port.now();
            if now.saturating_sub(began) > TURN {
                break;
            }
        }
        core::mem::forget(again);
        self.lock(cpu).is_some_and(|locked| locked.w.has_work(token.kind(), now))
    }

    /// Takes the first that is due at the token's level, and runs it.
    fn run_one(&self, cpu: usize, token: &Token<'_>, now: u64) -> Found {
        let Some(mut locked) = self.lock(cpu) else { return Found::Nothing };
        let level = token.kind();
        let more = !locked.w.shelf.has_due(level) && locked.w.take_due(now);
        let Some(mut flight) = locked.w.commit(level) else {
            self.unlock(locked);
            return if more { Found::NotYet } else { Found::Nothing };
        };
        // An interrupt may have stepped the wheel since `now` was read, and later: no handler is told a time before its deadline.
        let now = if now < flight.deadline { self.port.now() } else { now };
        let saved = if broken::is(Hazard::SavedNext) { locked.w.commit(level) } else { None };
        if !flight.node().is_bound() {
            // No moment between the two for a handler without a lock: what a stop says is what happens.
            locked.w.enter(&mut flight, now);
        }
        self.unlock(locked);
        self.attempt(cpu, token, now, flight);
        if let Some(saved) = saved {
            self.attempt(cpu, token, now, saved);
        }
        Found::One
    }

    /// Runs what is in flight, and ends its flight.
    pub(crate) fn attempt(&self, cpu: usize, token: &Token<'_>, now: u64, flight: Flight) {
        let expiry = Expiry::new(&flight, now);
        let mut attempt = Attempt { wheels: self, cpu, level: token.kind(), now, flight: Some(flight), ran: None };
        attempt.run(token, &expiry);
        drop(expiry);
        drop(attempt);
    }

    /// The alarm of `cpu` went off, or it was kicked. Interrupts are off.
    pub(crate) fn interrupt(&self, cpu: usize, token: Token<'_>, alarm: bool) {
        let Some(mut locked) = self.lock(cpu) else { return };
        let before = self.port.now();
        locked.w.kicked = false;
        locked.w.serving = true;
        if alarm && let Some(set) = locked.w.alarm {
            locked.w.note_jump(before.saturating_sub(set));
        }
        // Those that never set the alarm come with those that do.
        let idle = !locked.w.has_work(Kind::HardIrq, before);
        self.unlock(locked);
        let mut serving = Serving { wheels: self, cpu, calm: idle };
        let mut round = 0;
        while !serving.calm && (round < ROUNDS || broken::is(Hazard::NoBackOff)) {
            serving.calm = self.round(cpu, &token);
            round += 1;
        }
        drop(serving);
    }

    /// One step, and the hard interrupt handlers that are due. Whether nothing is due any more.
    fn round(&self, cpu: usize, token: &Token<'_>) -> bool {
        let now = self.port.now();
        for _ in 0..BUDGET {
            if self.run_one(cpu, token, now) != Found::One {
                break;
            }
        }
        let now = self.port.now();
        self.lock(cpu).is_none_or(|locked| locked.w.next_event().is_none_or(|at| at > now))
    }

    /// Takes the next thing that is to be done on `cpu` as a bottom half, besides running handlers. What is dead is freed first, so that a completion
    /// finds its callout's handler gone.
    pub(crate) fn chore(&self, cpu: usize) -> Option<Chore> {
        loop {
            let mut locked = self.lock(cpu)?;
            if let Some(by) = locked.w.jumped.take() {
                return Some(Chore::Jumped(by));
            }
            if let Some(dead) = locked.w.take_dead() {
                return Some(Chore::Free(dead));
            }
            let mut waiter = locked.w.take_completed()?;
            let Some(kept) = waiter.keeps.take() else { return Some(Chore::Complete(waiter)) };
            // The node that it kept is freed first: it comes back behind that.
            locked.w.complete(Some(waiter));
            let dead = kept.release();
            locked.w.bury(dead);
            self.unlock(locked);
        }
    }

    /// Has a level's executor look again unless it is forgotten: a handler or a completion that unwinds leaves others behind.
    pub(crate) const fn again(&self, cpu: usize, level: Kind) -> Again<'_, P> {
        Again { wheels: self, cpu, level }
    }
}

/// Something to do as a bottom half.
#[must_use]
pub(crate) enum Chore {
    /// The clock jumped so far.
    Jumped(u64),
    Free(Dead),
    Complete(Box<Waiter>),
}

/// The alarm's handler at work. When it goes, the alarm is set, also if a handler unwinds.
struct Serving<'a, P: Port> {
    wheels: &'a Wheels<P>,
    cpu: usize,
    /// Nothing is due any more.
    calm: bool,
}

impl<P: Port> Drop for Serving<'_, P> {
    fn drop(&mut self) {
        let Some(mut locked) = self.wheels.lock(self.cpu) else { return };
        let now = self.wheels.port.now();
        locked.w.rest(self.calm, now);
        locked.w.serving = false;
        // Whatever it was set to: it went off, or is to be set later now.
        locked.w.alarm = None;
        locked.w.todo.alarm = true;
        self.wheels.unlock(locked);
    }
}

/// See [`Wheels::again`].
pub(crate) struct Again<'a, P: Port> {
    wheels: &'a Wheels<P>,
    cpu: usize,
    level: Kind,
}

impl<P: Port> Drop for Again<'_, P> {
    fn drop(&mut self) {
        if let Some(mut locked) = self.wheels.lock(self.cpu) {
            locked.w.again(self.level);
            self.wheels.unlock(locked);
        }
    }
}

/// A run in flight, which ends when this goes, however the handler ended.
pub(crate) struct Attempt<'a, P: Port> {
    wheels: &'a Wheels<P>,
    cpu: usize,
    level: Kind,
    /// When it was taken up.
    now: u64,
    flight: Option<Flight>,
    /// None while the handler runs, and for ever if it unwinds.
    ran: Option<Ran>,
}

/// What a lock-bound handler asks.
struct AtGate<'a, P: Port> {
    wheels: &'a Wheels<P>,
    cpu: usize,
    now: u64,
}

impl<P: Port> Gate for AtGate<'_, P> {
    fn enter(&mut self, flight: &mut Flight) -> bool {
        self.wheels.lock(self.cpu).is_some_and(|mut locked| locked.w.enter(flight, self.now))
    }

    fn leave(&mut self, flight: &mut Flight, next: Next) {
        let now = self.wheels.port.now();
        if let Some(mut locked) = self.wheels.lock(self.cpu) {
            locked.w.leave(flight, next, now);
        }
    }
}

impl<P: Port> Attempt<'_, P> {
    fn run(&mut self, token: &Token<'_>, expiry: &Expiry) {
        let mut gate = AtGate { wheels: self.wheels, cpu: self.cpu, now: self.now };
        if let Some(flight) = &mut self.flight {
            if broken::is(Hazard::FreedByHandler) {
                // Its own, and the expiry's.
                flight.node().miscount();
                flight.node().miscount();
            }
            self.ran = Some(flight.run(token, expiry, &mut gate));
        }
    }
}

impl<P: Port> Drop for Attempt<'_, P> {
    fn drop(&mut self) {
        let Some(mut flight) = self.flight.take() else { return };
        if self.ran.is_none() && broken::is(Hazard::NoGuard) {
            return;
        }
        let now = self.wheels.port.now();
        // On its way to another wheel it is not to wait for what interrupts this CPU.
        let _off = IrqOff::new();
        let Some(mut locked) = self.wheels.lock(self.cpu) else { return };
        let transit = match self.ran {
            Some(Ran::Contended) => locked.w.contend(flight, now),
            Some(Ran::Left | Ran::Void) => {
                locked.w.stats_mut().handler_took(now.saturating_sub(self.now));
                locked.w.finish(flight)
            }
            Some(Ran::Done(next)) => {
                locked.w.stats_mut().handler_took(now.saturating_sub(self.now));
                locked.w.leave(&mut flight, next, now);
                locked.w.finish(flight)
            }
            None => {
                locked.w.stats_mut().panicked += 1;
                locked.w.again(self.level);
                locked.w.leave(&mut flight, Next::Done, now);
                locked.w.finish(flight)
            }
        };
        self.wheels.unlock(locked);
        if let Some((node, transit)) = transit {
            self.wheels.arrive_last(node, transit);
        }
    }
}

impl crate::clockwork::Clockwork {
    /// The alarm was late by `late`: perhaps the machine was stopped.
    fn note_jump(&mut self, late: u64) {
        if late > JUMP {
            self.jumped = Some(self.jumped.unwrap_or(0).max(late));
            let stats = self.stats_mut();
            stats.jumps += 1;
            stats.longest_jump = stats.longest_jump.max(late);
            self.again(Kind::BottomHalf);
        }
    }

    /// The alarm's handler is through, or gives up: then the alarm does not go off for a while, so that others get on (W-22).
    fn rest(&mut self, calm: bool, now: u64) {
        if calm {
            self.not_before = 0;
            self.resting = 0;
        } else {
            self.resting = (self.resting * 2).clamp(SHORTEST_REST, LONGEST_REST);
            self.not_before = now.saturating_add(self.resting);
            self.stats_mut().hangs += 1;
        }
    }
}
