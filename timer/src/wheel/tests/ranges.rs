//! The ends of levels and of the range: W-03, W-05, W-06.

use super::{Defect, Pair, SHIFTS, clocks, with};

/// Delays around the reach of each level, and the longest.
fn reaches() -> impl Iterator<Item = u64> + Clone {
    let around = |level: u32| {
        let reach = 64_u64 << (3 * level);
        [reach - 1, reach, reach + 1, reach / 64 * 62, reach / 64 * 63]
    };
    (0..19).flat_map(around).chain([u64::MAX - 1, u64::MAX])
}

fn all_reaches() {
    for shift in SHIFTS {
        for clock in clocks() {
            let mut pair = Pair::new(clock, shift);
            for (number, delay) in reaches().enumerate() {
                pair.insert(number, clock.saturating_add(delay));
            }
            pair.run_out();
        }
    }
}

#[test]
fn w_03_the_reach_of_a_level_is_counted_from_the_clock() {
    all_reaches();
}

#[test]
#[should_panic(expected = "steps without end")]
fn w_03_control_the_reach_is_counted_from_zero() {
    with(Defect::ReachFromZero, all_reaches);
}

/// One timer as far away as can be, and short ones behind the ends of levels.
fn far_and_near() {
    for clock in clocks() {
        let mut pair = Pair::new(clock, 0);
        pair.insert(0, u64::MAX);
        let mut now = clock;
        for round in 0..40 {
            for level in 0..6 {
                // Two on each level, with its end between them at one time or another.
                pair.insert(1 + 2 * level, now.saturating_add(9 << (3 * level)));
                pair.insert(2 + 2 * level, now.saturating_add(50 << (3 * level)));
            }
            now = now.saturating_add(1 << round);
            pair.catch_up(now);
            pair.pop_all();
        }
        pair.run_out();
    }
}

#[test]
fn w_05_a_far_timer_does_not_hide_near_ones() {
    far_and_near();
}

#[test]
#[should_panic(expected = "late or lost")]
fn w_05_control_not_rotated() {
    with(Defect::NotRotated, far_and_near);
}

/// Every delay from every clock, two at a time.
fn the_whole_range() {
    for bits in 0..64 {
        let clock = (1_u64 << bits) - 1;
        for delay in reaches() {
            let mut pair = Pair::new(clock, 0);
            pair.insert(0, clock.saturating_add(delay));
            pair.insert(1, clock.saturating_add(delay / 2));
            pair.insert(2, u64::MAX - delay);
            pair.run_out();
        }
    }
}

#[test]
fn w_06_nothing_is_too_far() {
    the_whole_range();
}

#[test]
#[should_panic(expected = "late or lost")]
fn w_06_control_too_few_levels() {
    with(Defect::TooFewLevels, the_whole_range);
}
