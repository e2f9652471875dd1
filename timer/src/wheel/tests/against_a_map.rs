//! Random scripts, from clocks all over the range.

use super::model::NODES;
use super::{Pair, Random, SHIFTS, clocks};

fn script(seed: u64, clock: u64, shift: u32, length: usize) {
    let mut random = Random(seed);
    let mut pair = Pair::new(clock, shift);
    let mut now = clock;
    for _ in 0..length {
        match random.below(12) {
            0..6 => {
                let deadline = match random.below(8) {
                    0 => random.next(),
                    1 => u64::MAX - random.any_size(),
                    2 => now.saturating_sub(random.any_size()),
                    _ => now.saturating_add(random.any_size()),
                };
                pair.insert(random.below(NODES as u64) as usize, deadline);
            }
            6..8 => pair.remove(random.below(NODES as u64) as usize),
            8 => {
                now = now.saturating_add(random.any_size() >> random.below(40));
                pair.step(now);
            }
            9 => {
                now = pair.wheel.next_event().map_or(now, |next| next.max(now));
                pair.catch_up(now);
            }
            10 => drop(pair.pop()),
            _ => pair.pop_all(),
        }
    }
    pair.catch_up(now);
    pair.pop_all();
    pair.run_out();
}

#[test]
fn random_scripts_agree_with_an_ordered_map() {
    for (at, clock) in clocks().enumerate() {
        for shift in SHIFTS {
            script(at as u64 * 2 + u64::from(shift), clock, shift, 400);
        }
    }
}

/// Many in a few slots: full ones, and what is left of them.
#[test]
fn crowds_agree_with_an_ordered_map() {
    for (seed, clock) in clocks().step_by(7).enumerate() {
        let mut random = Random(seed as u64);
        let mut pair = Pair::new(clock, 0);
        let mut now = clock;
        for _ in 0..6 {
            let (far, wide) = (random.any_size() >> 12, 1 + random.below(5000));
            for number in 0..NODES {
                pair.insert(number, now.saturating_add(far).saturating_add(random.below(wide)));
            }
            for _ in 0..random.below(100) {
                pair.remove(random.below(NODES as u64) as usize);
            }
            for _ in 0..random.below(20) {
                now = pair.wheel.next_event().map_or(now, |next| next.max(now).saturating_add(random.below(3)));
                pair.catch_up(now);
                pair.pop_all();
            }
        }
        pair.run_out();
    }
}

/// After removals, a wheel that is asked to look again knows the earliest of those that are left.
#[test]
fn looked_at_again_the_next_event_is_exact() {
    let mut random = Random(3);
    for clock in clocks() {
        let mut pair = Pair::new(clock, 0);
        // Too few for any slot to be full.
        (0..8).for_each(|number| pair.insert(number, clock.saturating_add(random.any_size() >> 8)));
        (0..5).for_each(|number| pair.remove(number));
        pair.catch_up(clock);
        let first = pair.earliest();
        assert_eq!(pair.wheel.earliest(), first);
    }
}
