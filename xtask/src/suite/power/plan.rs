//! What the power workload writes (`docs/power.md`), as the host knows it: written apart from the image's own.

use crate::disk::pattern::mix;

pub const SECTOR: usize = 512;
pub const WORKERS: u64 = 2;
const STRIPE: u64 = 13;
const STRIPES: u64 = 160;
/// Sectors of the region.
pub const SECTORS: u64 = STRIPE * STRIPES;
const MAGIC: &[u8; 8] = b"UCpower1";
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The sequence behind every random choice, as in the image: splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

fn fold(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum, word| mix(sum ^ word))
}

/// What a sector says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// The disk: the first eight bytes of its serial number.
    pub disk: u64,
    pub sector: u64,
    pub seed: u64,
    pub worker: u64,
    pub generation: u64,
}

/// A disk's number.
pub fn disk_number(serial: &str) -> u64 {
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(serial.bytes()).for_each(|(to, from)| *to = from);
    u64::from_le_bytes(bytes)
}

impl Label {
    const fn who(&self) -> u64 {
        self.worker << 56 | self.generation
    }

    /// The whole sector.
    pub fn bytes(&self) -> [u8; SECTOR] {
        let head = [u64::from_le_bytes(*MAGIC), self.disk, self.sector, self.seed, self.who()];
        let key = fold(&head);
        let mut bytes = [0; SECTOR];
        for (at, place) in bytes.chunks_exact_mut(8).enumerate() {
            let word = head.get(at).copied().unwrap_or_else(|| mix(key.wrapping_add((at as u64).wrapping_mul(GOLDEN))));
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// What the first words of a sector say. `None`: they are nobody's. The others need not fit.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut words = bytes.chunks_exact(8).map_while(|word| Some(u64::from_le_bytes(word.try_into().ok()?)));
        if words.next()? != u64::from_le_bytes(*MAGIC) {
            return None;
        }
        let (disk, sector, seed, who) = (words.next()?, words.next()?, words.next()?, words.next()?);
        Some(Self { disk, sector, seed, worker: who >> 56, generation: who & (u64::MAX >> 8) })
    }

    /// The sectors that this worker's generation writes, in a region that begins at sector `start`: first and count.
    pub fn plan(&self, start: u64) -> Vec<(u64, u64)> {
        let mut random = Random(fold(&[self.disk, self.seed, self.who()]));
        let mine = STRIPES / WORKERS;
        let count = 1 + random.below(6);
        let mut at = random.below(mine);
        let mut extents = Vec::new();
        for _ in 0..count {
            at = (at + 1 + random.below(9)) % mine;
            let first = random.below(STRIPE);
            let count = 1 + random.below(STRIPE - first);
            extents.push((start + (at * WORKERS + self.worker) * STRIPE + first, count));
        }
        extents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden values from a separate program (Python integers masked to 64 bits); the image's code has them too.
    #[test]
    fn sectors_and_plans_agree_with_golden_values() {
        assert_eq!(disk_number("blkq"), 0x716b_6c62);
        let label = Label { disk: 0x716b_6c62, sector: 140, seed: 7, worker: 1, generation: 3 };
        let word = |sector, at: usize| {
            u64::from_le_bytes(Label { sector, ..label }.bytes()[at * 8..][..8].try_into().unwrap())
        };
        let wanted = [865_614_596_538_866_323, 3_043_081_864_155_293_315, 9_491_581_160_343_983_669];
        assert_eq!([word(140, 5), word(140, 63), word(141, 5)], wanted);
        assert_eq!(label.plan(128), [(929, 1), (1035, 3), (1087, 1), (1131, 11)]);
        assert_eq!(Label::read(&label.bytes()), Some(label));
        assert_eq!(Label::read(&[0; SECTOR]), None);
    }
}
