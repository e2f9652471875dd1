//! Reference time: 100 ns units since the partition's start (TLFS 12.7). Any context; pure functions.

/// The sequence number of a reference page that must not be used now.
pub const INVALID_SEQUENCE: u32 = 0;
/// Nanoseconds of a unit.
pub const UNIT: u64 = 100;

/// The reference time at time-stamp `stamp`, by a reference page's scale (in units of 2^-64) and offset (two's complement).
pub const fn units(stamp: u64, scale: u64, offset: u64) -> u64 {
    ((((stamp as u128) * (scale as u128)) >> 64) as u64).wrapping_add(offset)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_becomes_units_through_128_bits() {
        // 2.5 GHz: 250 stamps to the unit.
        let scale = (1u128 << 64).div_ceil(250) as u64;
        assert_eq!(units(0, scale, 0), 0);
        assert_eq!(units(2_500_000_000, scale, 0), 10_000_000);
        // A year and a half: the product has more than 64 bits.
        assert_eq!(units(1 << 57, scale, 0), (1 << 57) / 250);
        // A partition that was restored: the offset is negative.
        assert_eq!(units(2_500_000_000, scale, (-10_000_000i64) as u64), 0);
    }
}
