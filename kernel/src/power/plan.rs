//! What the power workload writes: which sectors each generation writes, and what is in them (`docs/power.md`). Pure; any context.

use alloc::vec::Vec;

use crate::pattern::{GOLDEN, Random, mix};

/// Bytes of a sector, whatever the disk's blocks are.
pub(crate) const SECTOR: usize = 512;
/// Workers of a disk.
pub(crate) const WORKERS: u64 = 2;
/// Sectors of a stripe. Stripes belong to the workers in turn, and are no multiples of a page: two workers meet in one page.
pub(crate) const STRIPE: u64 = 13;
/// Stripes of a disk.
pub(crate) const STRIPES: u64 = 160;
/// The first word of every sector.
const MAGIC: u64 = u64::from_le_bytes(*b"UCpower1");

/// Whose sectors: a worker of a disk in one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Author {
    /// The disk: the first eight bytes of its serial number.
    pub(crate) disk: u64,
    /// The run's seed.
    pub(crate) seed: u64,
    pub(crate) worker: u64,
}

/// Sectors that are written by one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) sector: u64,
    pub(crate) count: u64,
}

/// A disk's number.
pub(crate) fn disk_number(serial: &str) -> u64 {
    serial.bytes().take(8).zip((0..).step_by(8)).fold(0, |sum, (byte, shift)| sum | u64::from(byte) << shift)
}

fn fold(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum, word| mix(sum ^ word))
}

impl Author {
    const fn who(&self, generation: u64) -> u64 {
        self.worker << 56 | generation
    }

    /// What a generation writes, in a region that begins at sector `start`. No two extents overlap.
    pub(crate) fn plan(&self, start: u64, generation: u64) -> Vec<Extent> {
        let mut random = Random::new(fold(&[self.disk, self.seed, self.who(generation)]));
        let mine = STRIPES / WORKERS;
        let count = 1 + random.below(6);
        let mut at = random.below(mine);
        let extents = (0..count).map(|_| {
            at = (at + 1 + random.below(9)) % mine;
            let first = random.below(STRIPE);
            let count = 1 + random.below(STRIPE - first);
            Extent { sector: start + (at * WORKERS + self.worker) * STRIPE + first, count }
        });
        extents.collect()
    }

    /// The words of a sector: they tell what they are, and all others follow from that.
    fn words(&self, sector: u64, generation: u64) -> impl Iterator<Item = u64> {
        let head = [MAGIC, self.disk, sector, self.seed, self.who(generation)];
        let key = fold(&head);
        let rest =
            (head.len() as u64..SECTOR as u64 / 8).map(move |word| mix(key.wrapping_add(word.wrapping_mul(GOLDEN))));
        head.into_iter().chain(rest)
    }

    /// Fills sectors from `sector` on.
    pub(crate) fn fill(&self, bytes: &mut [u8], sector: u64, generation: u64) {
        for (bytes, sector) in bytes.chunks_exact_mut(SECTOR).zip(sector..) {
            for (place, word) in bytes.chunks_exact_mut(8).zip(self.words(sector, generation)) {
                place.copy_from_slice(&word.to_le_bytes());
            }
        }
    }

    /// Whether the sectors from `sector` on are a generation's.
    pub(crate) fn matches(&self, bytes: &[u8], sector: u64, generation: u64) -> bool {
        bytes.chunks_exact(SECTOR).zip(sector..).all(|(bytes, sector)| {
            bytes.chunks_exact(8).zip(self.words(sector, generation)).all(|(got, word)| got == word.to_le_bytes())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHOR: Author = Author { disk: 0x716b_6c62, seed: 7, worker: 1 };

    /// Golden values from a separate program (Python integers masked to 64 bits). The host's checker, which is written apart from this, has them too.
    #[test]
    fn sectors_and_plans_agree_with_golden_values() {
        assert_eq!(disk_number("blkq"), AUTHOR.disk);
        let mut bytes = [0; 2 * SECTOR];
        AUTHOR.fill(&mut bytes, 140, 3);
        let word = |at: usize| u64::from_le_bytes(bytes[at * 8..][..8].try_into().unwrap());
        assert_eq!([word(0), word(2), word(3), word(4), word(66)], [MAGIC, 140, 7, 1 << 56 | 3, 141]);
        assert_eq!([word(5), word(63), word(69)], GOLDEN_WORDS);
        assert!(AUTHOR.matches(&bytes, 140, 3) && !AUTHOR.matches(&bytes, 140, 4) && !AUTHOR.matches(&bytes, 141, 3));
        let plan: Vec<_> = AUTHOR.plan(128, 3).iter().map(|extent| (extent.sector, extent.count)).collect();
        assert_eq!(plan, GOLDEN_PLAN);
    }

    const GOLDEN_WORDS: [u64; 3] = [865_614_596_538_866_323, 3_043_081_864_155_293_315, 9_491_581_160_343_983_669];
    const GOLDEN_PLAN: [(u64, u64); 4] = [(929, 1), (1035, 3), (1087, 1), (1131, 11)];

    #[test]
    fn extents_of_a_generation_are_its_workers_and_do_not_overlap() {
        for worker in 0..WORKERS {
            let author = Author { worker, ..AUTHOR };
            for generation in 1..300 {
                let mut stripes = Vec::new();
                for extent in author.plan(0, generation) {
                    let stripe = extent.sector / STRIPE;
                    assert_eq!((extent.sector + extent.count - 1) / STRIPE, stripe);
                    assert!(extent.count > 0 && stripe < STRIPES && stripe % WORKERS == worker);
                    assert!(!stripes.contains(&stripe));
                    stripes.push(stripe);
                }
            }
        }
    }
}
