//! One timer for several times, which counts down and cannot count as far as one may have to wait. Any context, interrupts off.
//!
//! The timer is started for what comes first, at most for as long as it can count: what is left when it ends is started again, so that
//! nothing fires early and a long wait is a chain of counts (X32).

use core::sync::atomic::{AtomicU64, Ordering};

use super::scale::Scale;
use crate::broken::{self, Hazard};

/// No time.
pub(crate) const NEVER: u64 = u64::MAX;
/// The most that the counter holds.
const CAP: u32 = u32::MAX;

/// What one processor's timer waits for, in nanoseconds.
pub(crate) struct Times {
    alarm: AtomicU64,
    kick: AtomicU64,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) alarm: bool,
    pub(crate) kick: bool,
}

impl Times {
    pub(crate) const fn new() -> Self {
        Self { alarm: AtomicU64::new(NEVER), kick: AtomicU64::new(NEVER) }
    }

    /// Sets when the alarm is due. The timer is to be started anew.
    pub(crate) fn set_alarm(&self, at: Option<u64>) {
        self.alarm.store(at.unwrap_or(NEVER), Ordering::Relaxed);
    }

    /// Sets when the kick is due. The timer is to be started anew.
    pub(crate) fn set_kick(&self, at: u64) {
        self.kick.store(at, Ordering::Relaxed);
    }

    /// What comes first.
    pub(crate) fn earliest(&self) -> u64 {
        self.alarm.load(Ordering::Relaxed).min(self.kick.load(Ordering::Relaxed))
    }

    /// The timer went off. Takes what is due, then starts the timer again for what is not.
    pub(crate) fn expired(&self, now: u64, start: impl FnOnce()) -> Expired {
        let take = |time: &AtomicU64| {
            let due = time.load(Ordering::Relaxed) <= now;
            if due {
                time.store(NEVER, Ordering::Relaxed);
            }
            due
        };
        let expired = Expired { alarm: take(&self.alarm), kick: take(&self.kick) };
        if !broken::is(Hazard::NotArmedAgain) {
            start();
        }
        expired
    }
}

/// What the counter starts from so that it ends at `at`, or before that if it cannot count so far; 0 stops it.
pub(crate) fn count(rate: &Scale, at: u64, now: u64) -> u32 {
    if at == NEVER {
        return 0;
    }
    let ticks = rate.ticks(at.saturating_sub(now));
    if broken::is(Hazard::LargerOfTimeAndCap) {
        return ticks.max(u64::from(CAP)) as u32;
    }
    // Zero would stop it: a time that has passed ends with the next tick.
    u32::try_from(ticks).unwrap_or(CAP).max(1)
}

#[cfg(test)]
#[path = "countdown_tests.rs"]
mod tests;
