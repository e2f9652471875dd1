//! Negative controls on the real code: hazards that a test of this crate can put back, one at a time, on its own thread.
//!
//! In a program [`is`] is the constant `false`; only `cfg(test)` builds know the switch.

use crate::shim::Ordering;

/// A defect that a test can put back. Each is a historic one, by its id in `docs/callouts.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(all(test, not(any(loom, shuttle)))),
    allow(dead_code, reason = "a model uses the parts that it is about")
)]
pub(crate) enum Hazard {
    /// T-33 (loom M1): a drain returns while the handler runs.
    DrainDoesNotWait,
    /// T-18 (loom M2): a start erases the note that the handler is in flight.
    StartErasesFlight,
    /// T-35 (loom M3): a drain that removed something believes that nothing runs.
    RemovedMeansIdle,
    /// T-22, T-25 (loom M4): a start in flight moves the callout to another wheel at once.
    MovedInFlight,
    /// W-12 (loom M5): the end of a run is noted before the executor is done with the callout.
    FinishedEarly,
    /// T-30 (loom M6): a drain looks, and registers after it let go of the lock.
    RegisteredLate,
    /// T-26, T-04: a request that waits is applied at the end of a run although somebody drains.
    NextSurvivesDrain,
    /// T-06, T-32: starts are accepted while somebody drains.
    StartsWhileDraining,
    /// T-34: a start after the close arms.
    StartsAfterClose,
    /// T-20, T-09, I-2: a lock-bound handler runs for a generation that was replaced or stopped.
    StaleRuns,
    /// T-27: a stop in flight leaves the next request alone.
    NextSurvivesStop,
    /// T-10: a start while a request waits takes the node for one that is linked.
    ParkedTwice,
    /// T-13: an executor waits for a lock that is held.
    WaitsForLock,
    /// T-05: a second drain replaces the first one's completion.
    OneWaiter,
    /// T-07: completions run before the executor gave its reference back.
    CompletesEarly,
    /// T-31: a drain waits until nothing runs, whichever run it is.
    WaitsForAnyRun,
    /// T-38: the executor remembers the next due callout across a handler.
    SavedNext,
    /// T-39: one turn runs whatever comes due meanwhile, without end.
    EndlessTurn,
    /// W-08, T-23: a transit that was cancelled or replaced arrives all the same.
    TransitUnchecked,
    /// W-09: the alarm is not set again when an earlier start comes.
    AlarmNotMoved,
    /// W-19: another CPU is not kicked when its next event becomes earlier.
    NoKick,
    /// W-10: an alarm whose time is past is not set.
    PastAlarmSkipped,
    /// W-14: a handler that unwinds takes its flight with it.
    NoGuard,
    /// W-15: a stop in flight does not keep a periodic callout from its next period.
    PeriodSurvivesStop,
    /// W-21: a periodic re-arm replaces what somebody else started.
    PeriodReplacesStart,
    /// W-22: the alarm's handler goes on for as long as something is due.
    NoBackOff,
    /// I-12, T-09: a request that waits does not count as armed.
    ParkedIsNotArmed,
    /// I-10, W-17: a step is repeated until nothing is due.
    StepsWithoutEnd,
    /// T-08: a drain does not look whether it waits for its own caller.
    DrainBlind,
    /// T-23: the second wheel is locked before the first is free.
    BothLocks,
    /// T-29: the end of a run wakes the callout's CPU, not those that wait.
    WakesHome,
    /// W-07: a callout that is due is stopped, and left on the list.
    LeftOnList,
    /// W-11: who finds the callout's home changed goes on all the same.
    HomeUnchecked,
    /// W-11: who finds a callout at home there does not see what its last wheel wrote.
    HomeRelaxed,
    /// T-28, T-37: the executor has no reference of its own to the callout whose handler it runs.
    FreedByHandler,
    /// Pattern 18: a callout that is started for another CPU stays on the wheel that it is on.
    StaysWhereItIs,
}

undercroft_hal::put_back!(Hazard);

/// `ordering`, or none of it if a test has put `hazard` back.
#[inline(always)]
pub(crate) fn ordering(hazard: Hazard, ordering: Ordering) -> Ordering {
    if is(hazard) { Ordering::Relaxed } else { ordering }
}
