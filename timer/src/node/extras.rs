//! What a callout rarely has, in 32 bits: slack of its own, and periods left out. Pure.

use undercroft_hal::clock::Duration;

use crate::next::nanos;
use crate::shelf::TICK_SHIFT;

/// How much later than asked for a callout may be served: none, or 2^n ticks of 1024 ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Slack(u8);

impl Slack {
    /// The largest that is no more than `slack`.
    pub(crate) fn at_most(slack: Duration) -> Self {
        let ticks = nanos(slack) >> TICK_SHIFT;
        Self(ticks.checked_ilog2().map_or(0, |log| log as u8 + 1))
    }

    /// In nanoseconds.
    pub(crate) const fn nanos(self) -> u64 {
        if self.0 == 0 { 0 } else { 1 << (self.0 as u32 - 1 + TICK_SHIFT) }
    }
}

/// See the module. Bits 0 to 7: slack; 8 to 31: periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Extras(u32);

/// The most periods that are told of.
const MOST_MISSED: u64 = (1 << 24) - 1;

impl Extras {
    pub(super) const fn slack(self) -> Slack {
        Slack(self.0 as u8)
    }

    pub(super) const fn with_slack(self, slack: Slack) -> Self {
        Self(self.0 & !0xff | slack.0 as u32)
    }

    pub(super) const fn missed(self) -> u32 {
        self.0 >> 8
    }

    #[inline]
    pub(super) fn with_missed(self, missed: u64) -> Self {
        Self(self.0 & 0xff | (missed.min(MOST_MISSED) as u32) << 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slack_is_never_more_than_was_given() {
        for nanos in [0, 1, 1023, 1024, 1025, 2047, 2048, 1 << 33, (1 << 33) - 1, u64::MAX] {
            let slack = Slack::at_most(Duration::from_nanos(nanos)).nanos();
            assert!(slack <= nanos && (slack > nanos / 2 || nanos < 1024), "{nanos}: {slack}");
        }
        assert_eq!(Slack::at_most(Duration::MAX).nanos(), 1 << 63);
    }

    #[test]
    fn both_keep_to_their_bits() {
        let slack = Slack::at_most(Duration::from_secs(3));
        let extras = Extras::default().with_missed(u64::MAX).with_slack(slack);
        assert_eq!((extras.slack(), u64::from(extras.missed())), (slack, MOST_MISSED));
        assert_eq!(extras.with_missed(7).with_slack(Slack::default()).missed(), 7);
        assert_eq!(extras.with_missed(0).slack(), slack);
    }
}
