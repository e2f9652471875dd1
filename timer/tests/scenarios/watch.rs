//! What must never happen, and who sees it: one judge for the old systems and for ours.
//!
//! A scenario tells the watch what its client did and was told (armed, cancelled, over, freed) and what ran; the watch knows what may follow.
//! The models of the old systems report what goes wrong in their memory and locks to the same list.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// Memory was used after it was freed; `reused`: it was somebody else's by then.
    UseAfterFree { reused: bool },
    /// What was freed was freed again.
    DoubleFree,
    /// A list leads elsewhere than it should, or does not end.
    ListCorruption,
    /// Two handlers of one timer at a time.
    TwoAtOnce,
    /// A handler ran before the time that the timer was last armed for.
    EarlyFire { deadline: u64, at: u64 },
    /// A handler ran though its client had been told that it would not.
    FiredAfterStop,
    /// The client was told that the timer was over while its handler ran.
    OverWhileRunning,
    /// The client was told that the timer was over, and it is armed.
    ArmedWhenOver,
    /// Somebody waits for a wake-up that went to nobody.
    LostWakeup,
    /// Somebody waits for a timer that is not its own, or for a run later than the one that it began to wait for.
    WaitsForAnother,
    /// They wait for each other.
    Deadlock,
    /// A lock is held by somebody who does not know.
    LockLeak,
}

/// The result of a step.
pub type Step<T = ()> = Result<T, Violation>;

#[derive(Debug, Default, Clone)]
struct Timer {
    armed_for: Option<u64>,
    running: u32,
    over: bool,
    freed: bool,
    runs: u32,
}

/// The judge. Timers are known by a number that the scenario gives them, never used again.
#[derive(Debug, Default)]
pub struct Watch(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    timers: BTreeMap<usize, Timer>,
    violations: Vec<Violation>,
}

impl Watch {
    pub fn new() -> Self {
        Self::default()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `violation` down, if there is one.
    fn judge(&self, id: usize, look: impl FnOnce(&mut Timer) -> Option<Violation>) -> Step {
        let mut seen = self.seen();
        let found = look(seen.timers.entry(id).or_default());
        seen.violations.extend(found);
        found.map_or(Ok(()), Err)
    }

    /// The client armed the timer, and was not refused.
    pub fn armed(&self, id: usize, deadline: u64) -> Step {
        self.judge(id, |timer| {
            timer.armed_for = Some(deadline);
            timer.over.then_some(Violation::ArmedWhenOver)
        })
    }

    /// The client was told that no run will begin until the timer is armed again. One may be going on.
    pub fn cancelled(&self, id: usize) {
        let _ = self.judge(id, |timer| {
            timer.armed_for = None;
            None
        });
    }

    /// A handler begins.
    pub fn begins(&self, id: usize, now: u64) -> Step {
        self.judge(id, |timer| {
            timer.running += 1;
            timer.runs += 1;
            let deadline = timer.armed_for.take();
            match deadline {
                _ if timer.freed => Some(Violation::UseAfterFree { reused: false }),
                _ if timer.running > 1 => Some(Violation::TwoAtOnce),
                None => Some(Violation::FiredAfterStop),
                Some(deadline) => (now < deadline).then_some(Violation::EarlyFire { deadline, at: now }),
            }
        })
    }

    /// A handler begins that can ask whether this run, for `deadline`, still is what its client wants. If it is not, `superseded` has to say so.
    pub fn begins_for(&self, id: usize, deadline: u64, now: u64, superseded: impl FnOnce() -> bool) -> Step {
        let void = self.seen().timers.get(&id).is_none_or(|timer| timer.armed_for != Some(deadline));
        if void && superseded() { self.begins_superseded(id) } else { self.begins(id, now) }
    }

    /// A handler begins, and is told that this expiry is not its timer's last word: the client has started or stopped it since.
    pub fn begins_superseded(&self, id: usize) -> Step {
        self.judge(id, |timer| {
            timer.running += 1;
            match () {
                () if timer.freed => Some(Violation::UseAfterFree { reused: false }),
                () if timer.running > 1 => Some(Violation::TwoAtOnce),
                () => timer.over.then_some(Violation::FiredAfterStop),
            }
        })
    }

    /// A handler ends.
    pub fn ends(&self, id: usize) -> Step {
        self.judge(id, |timer| {
            timer.running -= 1;
            timer.freed.then_some(Violation::UseAfterFree { reused: false })
        })
    }

    /// The client was told that the timer is over: nothing runs, and nothing ever will.
    pub fn over(&self, id: usize) -> Step {
        self.judge(id, |timer| {
            timer.over = true;
            timer.armed_for = None;
            (timer.running > 0).then_some(Violation::OverWhileRunning)
        })
    }

    /// What the handler works on was freed.
    pub fn freed(&self, id: usize) -> Step {
        self.judge(id, |timer| match () {
            () if std::mem::replace(&mut timer.freed, true) => Some(Violation::DoubleFree),
            () => (timer.running > 0).then_some(Violation::UseAfterFree { reused: false }),
        })
    }

    /// Something else went wrong.
    pub fn report<T>(&self, violation: Violation) -> Step<T> {
        self.seen().violations.push(violation);
        Err(violation)
    }

    /// How often the handler ran, not counting runs that were told of their being superseded.
    pub fn runs(&self, id: usize) -> u32 {
        self.seen().timers.get(&id).map_or(0, |timer| timer.runs)
    }

    /// What went wrong so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.seen().violations.clone()
    }

    /// # Panics
    /// If anything went wrong.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert_eq!(self.violations(), [], "what must never happen");
    }
}
