//! Reference time, and how the guest's time-stamps become it.

use std::time::Instant;

/// The time since the machine began, in units of 100 ns.
#[derive(Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Begins now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// What it says.
    pub fn now(&self) -> u64 {
        (self.0.elapsed().as_nanos() / 100) as u64
    }
}

/// What the reference page says for a counter of this rate that shows `stamp` at the time `now`: scale and offset.
pub fn page(kilohertz: u32, stamp: u64, now: u64) -> Option<(u64, i64)> {
    const UNITS_PER_MILLISECOND: u128 = 10_000;
    if kilohertz <= UNITS_PER_MILLISECOND as u32 {
        return None;
    }
    let scale = ((UNITS_PER_MILLISECOND << 64) / u128::from(kilohertz)) as u64;
    let then = ((u128::from(stamp) * u128::from(scale)) >> 64) as u64;
    Some((scale, now.wrapping_sub(then) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_become_units() {
        let (scale, offset) = page(2_000_000, 5_000_000_000, 100).unwrap();
        let time = |stamp: u64| (((u128::from(stamp) * u128::from(scale)) >> 64) as u64).wrapping_add(offset as u64);
        assert_eq!(time(5_000_000_000), 100);
        // A second later.
        assert!((10_000_098..=10_000_101).contains(&time(7_000_000_000)));
        assert_eq!(page(0, 0, 0), None);
    }
}
