//! What a handler wants when it returns: nothing, another time, or the next of a period.

use undercroft_hal::clock::{Duration, Instant};

/// A handler's answer. A start by somebody else while the handler ran has precedence, and so has a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Next {
    /// Nothing.
    #[default]
    Done,
    /// Again at a time.
    At(Instant),
    /// Again so long after the handler returned.
    After(Duration),
    /// Again a period after the deadline of this run, or after that the smallest number of periods that is in the future: free of drift.
    /// Those left out are [`missed`](crate::Expiry::missed) in the next expiry. A period of zero counts as one nanosecond.
    Every(Duration),
}

impl From<()> for Next {
    fn from((): ()) -> Self {
        Self::Done
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Next {
    /// The deadline, and how many periods are left out, for a run whose deadline was `deadline` and that ended at `now`.
    pub(crate) fn resolve(self, deadline: u64, now: u64) -> Option<(u64, u64)> {
        match self {
            Self::Done => None,
            Self::At(at) => Some((at.as_nanos(), 0)),
            Self::After(delay) => Some((now.saturating_add(nanos(delay)), 0)),
            Self::Every(period) => {
                let period = nanos(period).max(1);
                let missed = now.saturating_sub(deadline) / period;
                let next = deadline.saturating_add(period.saturating_mul(missed.saturating_add(1)));
                Some((next, missed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_no_drift_and_counts_what_it_left_out() {
        let every = Next::Every(Duration::from_nanos(10));
        assert_eq!(every.resolve(100, 100), Some((110, 0)));
        assert_eq!(every.resolve(100, 109), Some((110, 0)));
        assert_eq!(every.resolve(100, 110), Some((120, 1)), "110 is past already");
        assert_eq!(every.resolve(100, 1_000_005), Some((1_000_010, 99_990)));
        assert_eq!(every.resolve(100, 90), Some((110, 0)), "a clock behind");
        assert_eq!(every.resolve(u64::MAX - 3, u64::MAX), Some((u64::MAX, 0)));
        assert_eq!(Next::Every(Duration::ZERO).resolve(5, 7), Some((8, 2)));
        assert_eq!(Next::Every(Duration::MAX).resolve(5, 7), Some((u64::MAX, 0)));
    }
}
