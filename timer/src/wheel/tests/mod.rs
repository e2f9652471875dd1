//! The wheel beside an ordered map, and the hazards of wheels one by one.

mod arena;
mod model;
pub(super) mod script;

#[cfg(test)]
mod against_a_map;
#[cfg(test)]
mod arithmetic;
#[cfg(test)]
mod bounded;
#[cfg(test)]
mod places;
#[cfg(test)]
mod ranges;
#[cfg(test)]
mod times;

use model::Pair;
#[cfg(test)]
use {
    super::broken::{Defect, with},
    model::Random,
};

/// Times around every power of two, and the last ones.
#[cfg(test)]
fn clocks() -> impl Iterator<Item = u64> {
    let around = |bits: u32| (0..5_u64).map(move |off| (1_u64 << bits).wrapping_add(off).wrapping_sub(2));
    (0..64).flat_map(around).chain([u64::MAX - 1, u64::MAX])
}

/// Ticks of a nanosecond, and those that callouts have.
#[cfg(test)]
const SHIFTS: [u32; 2] = [0, 10];
