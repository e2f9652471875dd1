//! The pattern of the write phase (`docs/console-protocol.md`), and the sequence behind every random choice. Pure; any context.

/// The finaliser of splitmix64.
pub(crate) const fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

pub(crate) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Fills bytes that lie at byte offset `start` of a disk, a multiple of 8.
pub(crate) fn fill(bytes: &mut [u8], seed: u64, start: u64) {
    let words = start / 8..;
    for (chunk, word) in bytes.chunks_mut(8).zip(words) {
        let value = mix(seed ^ word.wrapping_mul(GOLDEN)).to_le_bytes();
        chunk.copy_from_slice(&value[..chunk.len()]);
    }
}

/// Whether bytes at `start` are the pattern's.
pub(crate) fn matches(bytes: &[u8], seed: u64, start: u64) -> bool {
    let words = start / 8..;
    bytes.chunks(8).zip(words).all(|(chunk, word)| {
        let value = mix(seed ^ word.wrapping_mul(GOLDEN)).to_le_bytes();
        chunk == &value[..chunk.len()]
    })
}

/// A random sequence from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `bound` (zero for zero): the high half of a product, which needs no division.
    #[inline]
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of splitmix64 from seed 1234567, as its author's program prints them.
    #[test]
    fn the_sequence_is_splitmix64() {
        let mut random = Random::new(1_234_567);
        let got: [u64; 3] = core::array::from_fn(|_| random.next());
        assert_eq!(got, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn a_changed_byte_is_noticed_wherever_it_is() {
        let mut bytes = [0; 64];
        fill(&mut bytes, 7, 4096);
        assert!(matches(&bytes, 7, 4096));
        assert!(!matches(&bytes, 7, 4104) && !matches(&bytes, 8, 4096));
        for at in 0..64 {
            bytes[at] ^= 1;
            assert!(!matches(&bytes, 7, 4096), "byte {at}");
            bytes[at] ^= 1;
        }
    }
}
