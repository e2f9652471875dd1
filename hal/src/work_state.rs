//! The life of deferred work, as one atomic word: who must queue it, who may run it, when it is over.
//!
//! `QUEUED` is set by whoever schedules, and cleared by the runner *before* it looks at what there is to do, so that a schedule after that
//! look asks for another run (A-PC-29). While `RUNNING` is set nobody but the runner queues, so work never runs twice at a time (X07).
//! `CLOSED` is for ever: a run that has not begun when it is set never begins.

use crate::atomic::{AtomicU32, Ordering, const_unless_model};
use crate::broken::{self, Hazard};

const QUEUED: u32 = 1;
const RUNNING: u32 = 2;
const CLOSED: u32 = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct WorkState(AtomicU32);

impl WorkState {
    const_unless_model! {
        pub(crate) fn new() -> Self {
            Self(AtomicU32::new(0))
        }
    }

    /// Asks for a run. `true`: the caller must put the work on its queue.
    #[inline]
    #[must_use]
    pub(crate) fn schedule(&self) -> bool {
        // AcqRel: the run that this call asks for sees everything that the caller did before.
        let before = self.0.fetch_or(QUEUED, Ordering::AcqRel);
        if broken::is(Hazard::QueuedWhileRunning) {
            return before & (QUEUED | CLOSED) == 0;
        }
        before & (QUEUED | RUNNING | CLOSED) == 0
    }

    /// The runner took the work off its queue. `true`: run the handler; `false`: it is closed.
    #[must_use]
    pub(crate) fn begin(&self) -> bool {
        if broken::is(Hazard::ClosedMarkLost) {
            let before = self.0.swap(RUNNING, Ordering::AcqRel);
            if before & CLOSED != 0 {
                self.0.fetch_or(CLOSED, Ordering::AcqRel);
            }
            return before & CLOSED == 0;
        }
        let keep_queued = if broken::is(Hazard::FlagClearedLate) { QUEUED } else { 0 };
        let mut now = self.0.load(Ordering::Acquire);
        loop {
            let next = if now & CLOSED != 0 { CLOSED } else { RUNNING | keep_queued };
            match self.0.compare_exchange_weak(now, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return now & CLOSED == 0,
                Err(other) => now = other,
            }
        }
    }

    /// The handler returned. `true`: the runner must put the work on its queue again.
    #[must_use]
    pub(crate) fn finish(&self, again: bool) -> bool {
        if broken::is(Hazard::FlagClearedLate) {
            self.0.fetch_and(!(RUNNING | QUEUED), Ordering::AcqRel);
            return false;
        }
        if again {
            self.0.fetch_or(QUEUED, Ordering::AcqRel);
        }
        let before = self.0.fetch_and(!RUNNING, Ordering::AcqRel);
        before & QUEUED != 0 && before & CLOSED == 0
    }

    /// No run begins after this.
    pub(crate) fn close(&self) {
        self.0.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Whether the handler is running. Once closed and not running, it never runs again, and all that it did is visible.
    pub(crate) fn is_running(&self) -> bool {
        self.0.load(Ordering::Acquire) & RUNNING != 0
    }
}

#[cfg(all(test, not(shuttle)))]
#[path = "work_state_tests.rs"]
mod tests;
