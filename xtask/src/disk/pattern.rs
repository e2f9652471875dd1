//! The pattern of the write phase (`docs/console-protocol.md`): every 64-bit word of a disk has
//! one value that follows from the seed and its place, so that a misplaced or stale block shows.

use std::io::{self, Read, Seek, SeekFrom};

use super::region::Region;

/// The word at byte offset `offset` (a multiple of 8) of a disk.
pub fn word(seed: u64, offset: u64) -> u64 {
    mix(seed ^ (offset / 8).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// The finaliser of splitmix64.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Returns the offset of the first word in `region` that differs from the pattern.
///
/// # Errors
/// What the reader says, among them that it ends before the region does.
pub fn first_mismatch<R: Read + Seek>(disk: &mut R, seed: u64, region: Region) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = region.start;
    disk.seek(SeekFrom::Start(at))?;
    while at < region.end() {
        let take = buffer.len().min(usize::try_from(region.end() - at).unwrap_or(usize::MAX));
        disk.read_exact(&mut buffer[..take])?;
        for (i, got) in buffer[..take].chunks(8).enumerate() {
            let offset = at + 8 * i as u64;
            if got != &word(seed, offset).to_le_bytes()[..got.len()] {
                return Ok(Some(offset));
            }
        }
        at += take as u64;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// Golden values from a separate program (Python integers masked to 64 bits).
    #[test]
    fn words_agree_with_golden_values() {
        for (seed, offset, value) in GOLDEN {
            assert_eq!(word(seed, offset), value, "seed {seed}, offset {offset}");
        }
    }

    const GOLDEN: [(u64, u64, u64); 6] = [
        (0x1, 0x0, 0x5692161D100B05E5),
        (0x1, 0x8, 0xE4D971771B652C20),
        (0x1, 0x1000, 0x619B42A21ECC04B3),
        (0xdeadbeef, 0x100000, 0xF1E4BF07D7240475),
        (0xffffffffffffffff, 0x10000000040, 0x17B6445EC0B8D45E),
        (0x0, 0x8, 0xE220A8397B1DCDAF),
    ];

    fn disk(seed: u64, bytes: u64) -> Vec<u8> {
        (0..bytes / 8).flat_map(|i| word(seed, 8 * i).to_le_bytes()).collect()
    }

    #[test]
    fn the_pattern_is_recognised_where_it_lies() {
        let region = Region { start: 4096, length: 3 << 20 };
        let disk = disk(7, 4 << 20);
        assert_eq!(first_mismatch(&mut Cursor::new(&disk), 7, region).unwrap(), None);
        assert_eq!(first_mismatch(&mut Cursor::new(&disk), 8, region).unwrap(), Some(4096));
    }

    #[test]
    fn one_changed_bit_is_found_and_one_outside_is_not() {
        let region = Region { start: 4096, length: 3 << 20 };
        let mut disk = disk(7, 4 << 20);
        disk[4095] ^= 1;
        disk[4096 + (3 << 20)] ^= 1;
        assert_eq!(first_mismatch(&mut Cursor::new(&disk), 7, region).unwrap(), None);
        disk[2_000_005] ^= 0x80;
        assert_eq!(first_mismatch(&mut Cursor::new(&disk), 7, region).unwrap(), Some(2_000_000));
    }

    #[test]
    fn a_block_in_the_wrong_place_is_found() {
        let mut disk = disk(7, 1 << 20);
        disk.copy_within(8192..8192 + 512, 4096);
        let region = Region { start: 0, length: 1 << 20 };
        assert_eq!(first_mismatch(&mut Cursor::new(&disk), 7, region).unwrap(), Some(4096));
    }

    #[test]
    fn a_disk_that_ends_early_is_an_error() {
        let region = Region { start: 0, length: 1 << 20 };
        assert!(first_mismatch(&mut Cursor::new(disk(7, 4096)), 7, region).is_err());
    }
}
