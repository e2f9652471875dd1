//! The parser against what other programs wrote, and against what nobody should write.

use gpt_disk_types::{GptHeader, LbaLe, U32Le};

use super::super::golden::{GPT_512, Image, load};
use super::*;

/// What `table::read` does, without a disk.
fn parse(image: &[u8], block_size: u32, at: u64) -> Result<Vec<Entry>, GptError> {
    let size = block_size as usize;
    let capacity = (image.len() / size) as u64;
    let found = header(&image[at as usize * size..][..size], at, capacity)?;
    let start = found.entries_lba as usize * size;
    entries(&found, &image[start..][..found.array_blocks(block_size) as usize * size])
}

#[test]
fn golden_table_of_sgdisk() {
    let (image, size) = load(GPT_512);
    for at in [1, 20_479] {
        let found = parse(&image, size, at).unwrap();
        let plain: Vec<_> = found.iter().map(|e| (e.number, e.first, e.blocks, e.name.as_str())).collect();
        assert_eq!(plain, [(1, 2048, 4096, "root fs"), (2, 6144, 2048, "EFI ☃"), (5, 8192, 12_255, "")]);
        assert_eq!(found[0].kind.to_string(), "0FC63DAF-8483-4772-8E79-3D69D8477DE4");
        let names: Vec<_> = found.iter().map(|entry| entry.kind.name()).collect();
        assert_eq!(names, [Some("linux"), Some("efi-system"), Some("linux-swap")]);
    }
}

#[test]
fn independent_writer_with_every_block_and_entry_size() {
    for block_size in [512, 4096] {
        for (entry_size, entries) in [(128, 128), (128, 4), (256, 64), (512, 7), (4096, 5), (8192, 3)] {
            let image =
                Image { entry_size, entries, ..Image::new(block_size, &[(200, 299, "one"), (300, 300, "two")]) };
            let bytes = image.write(|_| ());
            for at in [1, 511] {
                let found = parse(&bytes, block_size, at).unwrap();
                let plain: Vec<_> = found.iter().map(|e| (e.number, e.first, e.blocks, e.name.as_str())).collect();
                assert_eq!(plain, [(1, 200, 100, "one"), (2, 300, 1, "two")], "{block_size} {entry_size}");
            }
        }
    }
}

#[test]
fn every_single_corruption_is_noticed() {
    let image = Image::new(512, &[(200, 299, "one")]).write(|_| ());
    // Header: all 92 bytes; entries: all of the array.
    for at in (512..512 + 92).chain(1024..1024 + 128 * 128) {
        let mut bad = image.clone();
        bad[at] ^= 0x10;
        assert!(parse(&bad, 512, 1).is_err(), "byte {at}");
    }
}

fn with(change: impl Fn(&mut GptHeader)) -> GptError {
    let image = Image::new(512, &[(200, 299, "one")]).write(change);
    parse_raw(&image).unwrap_err()
}

fn parse_raw(image: &[u8]) -> Result<Header, GptError> {
    header(&image[512..1024], 1, (image.len() / 512) as u64)
}

#[test]
fn headers_that_contradict_the_disk_are_refused() {
    let lba = LbaLe::from_u64;
    let num = U32Le::from_u32;
    assert_eq!(with(|h| h.my_lba = lba(2)), GptError::WrongPlace);
    assert_eq!(with(|h| h.last_usable_lba = lba(512)), GptError::Range);
    assert_eq!(with(|h| h.last_usable_lba = lba(u64::MAX)), GptError::Range);
    assert_eq!(with(|h| h.first_usable_lba = lba(1)), GptError::Range);
    assert_eq!(with(|h| h.first_usable_lba = lba(33)), GptError::Range);
    assert_eq!(with(|h| h.first_usable_lba = lba(490)), GptError::Range);
    assert_eq!(with(|h| h.partition_entry_lba = lba(u64::MAX)), GptError::Range);
    assert_eq!(with(|h| h.partition_entry_lba = lba(1)), GptError::Range);
    assert_eq!(with(|h| h.partition_entry_lba = lba(500)), GptError::Range);
    for size in [0, 1, 64, 127, 129, 192, 0x8000_0000] {
        assert_eq!(with(|h| h.size_of_partition_entry = num(size)), GptError::EntrySize, "{size}");
    }
    for count in [8193, 0x0200_0000, u32::MAX] {
        assert_eq!(with(|h| h.number_of_partition_entries = num(count)), GptError::EntrySize, "{count}");
    }
    for size in [0, 91, 513, u32::MAX] {
        // The checksum cannot be right for such a size, and is not looked at.
        assert_eq!(with(|h| h.header_size = num(size)), GptError::HeaderSize, "{size}");
    }
    assert_eq!(with(|h| h.revision.0 = num(0x0002_0000)), GptError::Revision);
}

#[test]
fn a_longer_header_is_legal() {
    let mut image = Image::new(512, &[(200, 299, "one")]).write(|h| h.header_size = U32Le::from_u32(512));
    // The independent writer sums 92 bytes only: sum the rest as the specification says.
    image[512 + 16..512 + 20].fill(0);
    image[512 + 300] = 7;
    let crc = crc32(&[&image[512..1024]]);
    image[512 + 16..512 + 20].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(parse(&image, 512, 1).unwrap().len(), 1);
    image[512 + 301] = 7;
    assert_eq!(parse(&image, 512, 1), Err(GptError::HeaderChecksum));
}

#[test]
fn entries_that_overlap_or_overflow_are_refused() {
    for (parts, error) in [
        (&[(200, 299, "a"), (299, 350, "b")][..], GptError::Overlap(1, 2)),
        (&[(300, 350, "a"), (200, 300, "b")], GptError::Overlap(2, 1)),
        (&[(200, 300, "a"), (220, 230, "b")], GptError::Overlap(1, 2)),
        (&[(200, 199, "a")], GptError::EntryRange(1)),
        (&[(200, 300, "a"), (33, 40, "b")], GptError::EntryRange(2)),
        (&[(200, 511, "a")], GptError::EntryRange(1)),
        (&[(200, u64::MAX, "a")], GptError::EntryRange(1)),
        (&[(u64::MAX, u64::MAX, "a")], GptError::EntryRange(1)),
    ] {
        assert_eq!(parse(&Image::new(512, parts).write(|_| ()), 512, 1), Err(error), "{parts:?}");
    }
}

#[test]
fn any_bytes_are_survived() {
    let image = Image::new(512, &[(200, 299, "one")]).write(|_| ());
    let mut random = undercroft_hosts::Random::new(7);
    for round in 0..20_000 {
        let mut block = image[512..1024].to_vec();
        for _ in 0..1 + random.below(6) {
            let at = random.below(92);
            block[at] = random.below(256) as u8;
        }
        let crc = crc32(&[&block[..16], &[0; 4], &block[20..92]]);
        block[16..20].copy_from_slice(&crc.to_le_bytes());
        let length = if round % 3 == 0 { random.below(513) } else { 512 };
        if let Ok(found) = header(&block[..length], 1, 512) {
            assert!(found.array_bytes() <= MAX_ARRAY && found.last_usable < 512);
            let _ = entries(&found, &image[1024..]);
        }
    }
}
