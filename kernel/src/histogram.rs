//! Latencies in a fixed table: counts by logarithm with sixteen steps to each doubling, so within 6 % of the truth. Any context.

const STEPS: usize = 16;
const BUCKETS: usize = 61 * STEPS;

/// Counts of values.
pub(crate) struct Histogram {
    counts: [u32; BUCKETS],
    total: u64,
}

fn bucket(value: u64) -> usize {
    if value < STEPS as u64 {
        return value as usize;
    }
    let exponent = value.ilog2();
    let step = (value >> (exponent - 4)) as usize & (STEPS - 1);
    (exponent as usize - 3) * STEPS + step
}

/// The middle of a bucket.
fn value(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (exponent, step) = (bucket / STEPS + 3, bucket % STEPS);
    let low = ((STEPS + step) as u64) << (exponent - 4);
    low + (1 << (exponent - 4)) / 2
}

impl Histogram {
    pub(crate) const fn new() -> Self {
        Self { counts: [0; BUCKETS], total: 0 }
    }

    #[inline]
    pub(crate) fn add(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
    }

    /// Adds all that `other` counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, other)| *count += other);
        self.total += other.total;
    }

    /// The value that `percent` of all values do not exceed; 0 without values.
    pub(crate) fn percentile(&self, percent: u64) -> u64 {
        let mut left = (self.total * percent).div_ceil(100);
        for (at, &count) in self.counts.iter().enumerate() {
            if u64::from(count) >= left {
                return if left == 0 { 0 } else { value(at) };
            }
            left -= u64::from(count);
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_everything_and_their_middles_are_close() {
        let mut last = 0;
        for shift in 0..64 {
            for v in [(1u64 << shift) - 1, 1 << shift, (1 << shift) + (1 << shift) / 3] {
                let at = bucket(v);
                assert!(at < BUCKETS && at >= last, "{v}");
                last = at;
                assert!(value(at).abs_diff(v) <= v / 16 + 1, "{v} became {}", value(at));
            }
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn merged_halves_are_the_whole() {
        let (mut low, mut high, mut whole) = (Histogram::new(), Histogram::new(), Histogram::new());
        (1..=500).for_each(|v| low.add(v));
        (501..=1000).for_each(|v| high.add(v));
        (1..=1000).for_each(|v| whole.add(v));
        low.merge(&high);
        for percent in 0..=100 {
            assert_eq!(low.percentile(percent), whole.percentile(percent));
        }
    }

    #[test]
    fn percentiles_of_one_to_a_thousand() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile(50), 0);
        (1..=1000).for_each(|v| histogram.add(v));
        for percent in [1, 50, 90, 99, 100] {
            let (got, want) = (histogram.percentile(percent), percent * 10);
            assert!(got.abs_diff(want) <= want / 16 + 1, "p{percent}: {got}");
        }
    }
}
