//! What must be on a disk, by what was asked of the image and nothing that it answered (`docs/console-protocol.md`).

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::disk::pattern;

/// Bytes of a block.
pub const BLOCK: usize = 512;
/// Of a script's requests, at most.
const LARGEST: u64 = 64;
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A sequence of random numbers: splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        pattern::mix(self.0)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// A disk's bytes; of those that nobody can know (a discard leaves what it likes), that they are so.
pub struct Oracle {
    bytes: Vec<u8>,
    unknown: Vec<bool>,
}

impl Oracle {
    /// A blank disk.
    pub fn new(blocks: u64) -> Self {
        Self { bytes: vec![0; blocks as usize * BLOCK], unknown: vec![false; blocks as usize] }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn blocks(&self) -> u64 {
        self.unknown.len() as u64
    }

    fn range(&mut self, first: u64, blocks: u64) -> &mut [u8] {
        self.unknown[first as usize..(first + blocks) as usize].fill(false);
        &mut self.bytes[first as usize * BLOCK..][..blocks as usize * BLOCK]
    }

    /// The pattern of a seed.
    pub fn write(&mut self, first: u64, blocks: u64, seed: u64) {
        let start = first * BLOCK as u64;
        for (word, at) in self.range(first, blocks).chunks_exact_mut(8).zip((start..).step_by(8)) {
            word.copy_from_slice(&pattern::word(seed, at).to_le_bytes());
        }
    }

    pub fn zero(&mut self, first: u64, blocks: u64) {
        self.range(first, blocks).fill(0);
    }

    pub fn forget(&mut self, first: u64, blocks: u64) {
        self.unknown[first as usize..(first + blocks) as usize].fill(true);
    }

    /// What a script leaves.
    pub fn script(&mut self, first: u64, blocks: u64, seed: u64, steps: u32) {
        self.write(first, blocks, pattern::mix(seed));
        let mut random = Random(seed);
        for step in 1..=u64::from(steps) {
            let act = random.below(16);
            let count = 1 + random.below(LARGEST.min(blocks));
            let at = first + random.below(blocks - count + 1);
            match act {
                7..=13 => self.write(at, count, pattern::mix(seed ^ step)),
                14 => self.zero(at, count),
                _ => {}
            }
        }
    }

    /// The SHA-256 of some blocks in hexadecimal; `None` if they are not all known.
    pub fn sum(&self, blocks: Range<u64>) -> Option<String> {
        let range = blocks.start as usize..blocks.end as usize;
        if self.unknown[range.clone()].contains(&true) {
            return None;
        }
        let sum = Sha256::digest(&self.bytes[range.start * BLOCK..range.end * BLOCK]);
        Some(sum.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The first block that differs from what must be there; those of `busy` are in the making.
    pub fn differs(&self, disk: &[u8], busy: &Range<u64>) -> Option<u64> {
        let wrong = |block: &usize| {
            let range = block * BLOCK..(block + 1) * BLOCK;
            !self.unknown[*block]
                && !busy.contains(&(*block as u64))
                && disk.get(range.clone()) != self.bytes.get(range)
        };
        (0..self.unknown.len()).find(wrong).map(|block| block as u64)
    }

    /// Changes a byte: what finds differences is to find this one.
    pub fn break_a_byte(&mut self) {
        self.unknown[0] = false;
        self.bytes[0] ^= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_compared_and_nothing_else() {
        let mut oracle = Oracle::new(64);
        oracle.write(3, 2, 9);
        let mut disk = vec![0; 64 * BLOCK];
        assert_eq!(oracle.differs(&disk, &(0..0)), Some(3));
        assert_eq!(oracle.differs(&disk, &(3..5)), None, "they are in the making");
        disk[3 * BLOCK..5 * BLOCK].copy_from_slice(&oracle.bytes[3 * BLOCK..5 * BLOCK]);
        assert_eq!(oracle.differs(&disk, &(0..0)), None);
        oracle.break_a_byte();
        assert_eq!(oracle.differs(&disk, &(0..0)), Some(0));
        oracle.forget(0, 1);
        assert_eq!((oracle.differs(&disk, &(0..0)), oracle.sum(0..2)), (None, None));
        assert_eq!(oracle.differs(&disk[..100], &(0..0)), Some(1), "a disk that ends early");
    }

    #[test]
    fn a_script_follows_from_its_seed() {
        let of = |seed| {
            let mut oracle = Oracle::new(300);
            oracle.script(100, 150, seed, 500);
            oracle
        };
        let (one, same, other) = (of(7), of(7), of(8));
        assert_eq!(one.sum(0..300), same.sum(0..300));
        assert_ne!(one.sum(0..300), other.sum(0..300));
        assert!(one.bytes[..100 * BLOCK].iter().all(|byte| *byte == 0), "beyond its range");
        assert!(one.bytes[250 * BLOCK..].iter().all(|byte| *byte == 0), "beyond its range");
        // Zeroes are written too: not always last.
        let zeroed = |seed| {
            of(seed).bytes[100 * BLOCK..250 * BLOCK].chunks(BLOCK).any(|block| block.iter().all(|byte| *byte == 0))
        };
        assert!((0..50).any(zeroed));
    }
}
