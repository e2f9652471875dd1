//! From ticks to nanoseconds and back, by fixed-point factors. Any context.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::broken::{self, Hazard};

const SECOND: u128 = 1_000_000_000;

/// A rate. Set once, before the other processors run.
pub(crate) struct Scale {
    /// Nanoseconds per tick, 32.32.
    nanoseconds: AtomicU64,
    /// Ticks per nanosecond, 32.32.
    ticks: AtomicU64,
}

impl Scale {
    pub(crate) const fn new() -> Self {
        Self { nanoseconds: AtomicU64::new(0), ticks: AtomicU64::new(0) }
    }

    /// Sets the rate, in ticks per second; zero counts as one.
    pub(crate) fn set(&self, rate: u64) {
        let rate = u128::from(rate.max(1));
        let fit = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        self.nanoseconds.store(fit((SECOND << 32) / rate), Ordering::Relaxed);
        self.ticks.store(fit((rate << 32) / SECOND), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn nanoseconds(&self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.nanoseconds.load(Ordering::Relaxed))) >> 32) as u64
    }

    /// Saturates: a time too far to be counted is the farthest that can be, not an earlier one (X32).
    pub(crate) fn ticks(&self, nanoseconds: u64) -> u64 {
        let ticks = (u128::from(nanoseconds) * u128::from(self.ticks.load(Ordering::Relaxed))) >> 32;
        if broken::is(Hazard::FarTimeWraps) { ticks as u64 } else { u64::try_from(ticks).unwrap_or(u64::MAX) }
    }
}
