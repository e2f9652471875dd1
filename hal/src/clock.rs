//! Monotonic time in nanoseconds. Any context; reading never takes a lock.

#[cfg(any(all(test, not(any(loom, shuttle))), all(feature = "x86_64", target_os = "none")))]
pub(crate) mod countdown;
#[cfg(any(all(test, not(any(loom, shuttle))), all(feature = "x86_64", target_os = "none")))]
pub(crate) mod scale;

use core::ops::{Add, Sub};

pub use core::time::Duration;

use crate::platform::seam;

/// A point in monotonic time: nanoseconds since an arbitrary start of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// Now.
    #[inline]
    pub fn now() -> Self {
        Self(seam::now())
    }

    /// The instant `nanos` nanoseconds after the platform's start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the platform's start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The time from `self` to now.
    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }
}

/// The processor's cycle counter, for intervals on one CPU: its rate is the processor's own. Nanoseconds where there is none. Any context.
#[inline]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86_64 processor has the time-stamp counter; reading it has no effect.
    return unsafe { core::arch::x86_64::_rdtsc() };
    #[cfg(not(target_arch = "x86_64"))]
    seam::now()
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the far end of time.
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, rhs: Self) -> Duration {
        self.since(rhs)
    }
}
