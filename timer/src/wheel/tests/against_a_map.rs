//! Random scripts, from clocks all over the range.

use super::model::{NODES, Pair, Random};
use crate::wheel::broken::{Defect, with};

/// Clocks around every power of two.
fn clocks() -> impl Iterator<Item = u64> {
    let around = |bits: u32| (0..5_u64).map(move |off| (1_u64 << bits).wrapping_add(off).wrapping_sub(2));
    (0..64).flat_map(around).chain([u64::MAX - 1, u64::MAX])
}

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
        for shift in [0, 10] {
            script(at as u64 * 2 + u64::from(shift), clock, shift, 400);
        }
    }
}

#[test]
#[should_panic(expected = "early: ")]
fn w_18_control_rounded_down() {
    with(Defect::RoundedDown, random_scripts_agree_with_an_ordered_map);
}

#[test]
#[should_panic(expected = "is later than the earliest")]
fn w_05_control_not_rotated() {
    with(Defect::NotRotated, random_scripts_agree_with_an_ordered_map);
}
