//! Executors: one for each CPU and level, each doing one turn at a time.
//!
//! A turn is bounded in handlers and in time; what it leaves over is for the next, after others had theirs. A handler that unwinds ends its
//! own run and no more: what waits is on lists under the wheel's lock, never in an executor's hands (W-14).

use undercroft_hal::BottomHalf;
use undercroft_hal::context::Kind;

use crate::broken::{self, Hazard};
use crate::expiry::Expiry;
use crate::level::Token;
use crate::next::Next;
use crate::node::{Flight, Gate, Ran};
use crate::port::Port;
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
        let again = Again { wheels: self, cpu, level: token.kind() };
        let began = self.port.now();
        let mut now = began;
        for _ in 0..BUDGET {
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
        if !flight.node().is_bound() {
            // No moment between the two for a handler without a lock: what a stop says is what happens.
            locked.w.enter(&mut flight, now);
        }
        self.unlock(locked);
        let expiry = Expiry::new(&flight, now);
        let mut attempt = Attempt { wheels: self, cpu, level, now, flight: Some(flight), ran: None };
        attempt.run(token, &expiry);
        drop(expiry);
        drop(attempt);
        Found::One
    }

    /// The alarm of `cpu` went off, or it was kicked. Interrupts are off.
    pub(crate) fn interrupt(&self, cpu: usize, token: Token<'_>, alarm: bool) {
        let Some(mut locked) = self.lock(cpu) else { return };
        let before = self.port.now();
        locked.w.kicked = false;
        if alarm && let Some(set) = locked.w.alarm.take() {
            locked.w.note_jump(before.saturating_sub(set));
        }
        let mut calm = locked.w.next_event().is_none_or(|at| at > before);
        // Those that never set the alarm come with those that do.
        let deferred = calm && locked.w.has_work(Kind::HardIrq, before);
        self.unlock_quietly(locked);
        let mut round = 0;
        while (!calm || deferred && round == 0) && (round < ROUNDS || broken::is(Hazard::NoBackOff)) {
            calm = self.round(cpu, &token);
            round += 1;
        }
        if let Some(mut locked) = self.lock(cpu) {
            let now = self.port.now();
            locked.w.rest(calm, now);
            locked.w.todo.alarm = true;
            self.unlock(locked);
        }
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

    /// Unlocks without setting the alarm, which is about to be set.
    fn unlock_quietly(&self, mut locked: crate::wheels::Locked<'_>) {
        locked.w.todo.alarm = false;
        self.unlock(locked);
    }

    /// Frees what is dead, tells of jumps, and runs completions; in this order, so that a completion finds its callout's handler gone.
    /// Whether there is more to do.
    pub(crate) fn housekeeping(&self, cpu: usize, cx: &BottomHalf, told: impl Fn(&BottomHalf, u64)) -> bool {
        let again = Again { wheels: self, cpu, level: Kind::BottomHalf };
        for _ in 0..BUDGET {
            let Some(mut locked) = self.lock(cpu) else { break };
            if !locked.w.has_housekeeping() {
                drop(locked);
                core::mem::forget(again);
                return false;
            }
            let jumped = locked.w.jumped.take();
            let dead = locked.w.take_dead();
            let completed = if dead.is_none() { locked.w.take_completed() } else { None };
            drop(locked);
            if let Some(by) = jumped {
                told(cx, by);
            }
            if let Some(dead) = dead {
                dead.free();
            }
            if let Some(mut waiter) = completed {
                if let Some(kept) = waiter.keeps.take() {
                    // Its node is freed first: it comes back behind that.
                    self.release(kept);
                    if let Some(mut locked) = self.lock(cpu) {
                        locked.w.complete(Some(waiter));
                        self.unlock(locked);
                    }
                } else {
                    waiter.run(cx);
                }
            }
        }
        core::mem::forget(again);
        true
    }
}

/// Has a level's executor look again, when a handler or a completion unwinds past it. Forgotten otherwise.
struct Again<'a, P: Port> {
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
