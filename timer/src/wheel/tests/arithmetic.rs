//! Ticks, levels and alignment by themselves.

use super::clocks;
use crate::wheel::levels::{self, MAX_LEVELS, Ticks};

/// Distances around the reach of every level.
fn distances() -> impl Iterator<Item = u64> {
    let of_level = |level: usize| {
        let length = levels::length(level);
        [62, 63, 64].into_iter().flat_map(move |granules| {
            let reach = length.saturating_mul(granules);
            [reach.saturating_sub(1), reach, reach.saturating_add(1)]
        })
    };
    (0..MAX_LEVELS).flat_map(of_level).chain([1, 2, 7, 8, u64::MAX])
}

#[test]
fn a_slot_means_one_granule() {
    for clock in clocks() {
        for distance in distances() {
            let Some(tick) = clock.checked_add(distance) else { continue };
            let level = levels::level(clock, tick, MAX_LEVELS - 1);
            let (from, to) = (levels::granule(level, clock), levels::granule(level, tick));
            assert!(to - from < 64, "clock {clock}, tick {tick}, level {level}");
            // So it is not yet time to move it down.
            assert!(level == 0 || levels::open(level, to) > clock, "clock {clock}, tick {tick}, level {level}");
        }
    }
}

#[test]
fn what_is_moved_goes_down() {
    for level in 1..MAX_LEVELS {
        let length = levels::length(level);
        for granule in [1, 2, 7, 8, 63, 64, 65, u64::MAX / length] {
            let Some(start) = granule.checked_mul(length) else { continue };
            for tick in [start, start + length / 2, start + (length - 1)] {
                for clock in [levels::open(level, granule), start - 1, start] {
                    let to = if clock < tick { levels::level(clock, tick, MAX_LEVELS - 1) } else { 0 };
                    assert!(to < level, "from level {level} to {to}: clock {clock}, tick {tick}");
                }
            }
        }
    }
}

#[test]
fn ticks_are_rounded_up_and_time_down() {
    let ticks = Ticks::new(10);
    assert_eq!([0, 1, 1024, 1025].map(|time| ticks.of_deadline(time)), [0, 1, 1, 2]);
    assert_eq!([0, 1, 1023, 1024, 2047].map(|time| ticks.of_now(time)), [0, 0, 0, 1, 1]);
    // The end of time comes at the end of time.
    let last = ticks.of_now(u64::MAX);
    assert_eq!([u64::MAX, u64::MAX - 1, u64::MAX - 1023].map(|time| ticks.of_deadline(time)), [last; 3]);
    assert!(ticks.of_now(u64::MAX - 1) < last);
    assert_eq!(ticks.nanos(last), u64::MAX);
    assert_eq!((levels::levels(10), levels::levels(0)), (17, 21));
}

#[test]
fn a_time_is_aligned_within_its_slack() {
    for deadline in 0..70_u64 {
        for slack in 0..70 {
            let best = (deadline..=deadline + slack).max_by_key(|time| time.trailing_zeros());
            assert_eq!(Some(levels::align(deadline, slack)), best, "{deadline} + {slack}");
        }
    }
    assert_eq!(levels::align(u64::MAX, u64::MAX), u64::MAX);
    assert_eq!(levels::align(1, u64::MAX), 1 << 63);
    assert_eq!(levels::align((1 << 40) - 1, 1), 1 << 40);
}
