//! Boot records.

use super::super::golden::{MBR_EXTENDED, load};
use super::*;

/// A boot record with these entries: status, type, first, blocks.
fn sector(entries: &[(u8, u8, u32, u32)]) -> Vec<u8> {
    let mut block = vec![0; 512];
    for (at, (status, kind, first, blocks)) in entries.iter().enumerate() {
        let raw = &mut block[446 + at * 16..][..16];
        (raw[0], raw[4]) = (*status, *kind);
        raw[8..12].copy_from_slice(&first.to_le_bytes());
        raw[12..16].copy_from_slice(&blocks.to_le_bytes());
    }
    block[510..].copy_from_slice(&[0x55, 0xaa]);
    block
}

/// Walks a chain whose records are at these blocks.
fn walk(extended: (u64, u64), records: &[(u64, Vec<u8>)]) -> Result<Vec<(u32, u64, u64)>, MbrError> {
    let mut chain = Chain::new(extended);
    let mut steps = 0;
    while let Some(at) = chain.next() {
        steps += 1;
        assert!(steps <= MAX_LOGICAL + 1, "bounded");
        let empty = vec![0; 512];
        let block = records.iter().find(|(lba, _)| *lba == at).map_or(&empty, |(_, block)| block);
        chain.step(block)?;
    }
    Ok(chain.into_entries().iter().map(|entry| (entry.number, entry.first, entry.blocks)).collect())
}

#[test]
fn golden_table_of_gdisk() {
    let (image, size) = load(MBR_EXTENDED);
    let block = |lba: u64| &image[lba as usize * size as usize..][..size as usize];
    let Record::Table { entries, extended } = record(block(0), 40_960).unwrap() else { panic!("a table") };
    assert_eq!(entries.iter().map(|e| (e.number, e.first, e.blocks)).collect::<Vec<_>>(), [(1, 2048, 4096)]);
    let mut chain = Chain::new(extended.unwrap());
    while let Some(at) = chain.next() {
        chain.step(block(at)).unwrap();
    }
    let found: Vec<_> = chain.into_entries().iter().map(|e| (e.number, e.first, e.blocks)).collect();
    assert_eq!(found, [(5, 8192, 4096), (6, 16_384, 2048), (7, 20_480, 6144), (8, 30_720, 2048)]);
}

#[test]
fn what_is_no_table_is_none() {
    assert_eq!(record(&[0; 512], 100), Ok(Record::None));
    assert_eq!(record(&[], 100), Ok(Record::None));
    assert_eq!(record(&[0xff; 512], 100), Ok(Record::None));
    // A FAT boot sector: signature, but code where the entries would be.
    let mut fat = sector(&[]);
    fat[446..510].copy_from_slice(&[0xac; 64]);
    assert_eq!(record(&fat, 100), Ok(Record::None));
    assert_eq!(record(&sector(&[(0, 0xee, 1, u32::MAX)]), 100), Ok(Record::Protective));
    assert_eq!(record(&sector(&[(0, 0x83, 5, 5), (0, 0xee, 1, 4)]), 100), Ok(Record::Protective), "a hybrid");
}

#[test]
fn impossible_entries_are_refused() {
    for (entries, error) in [
        (&[(0, 0x83, 90, 11)][..], MbrError::Range(1)),
        (&[(0x80, 0x83, 0, 10)], MbrError::Range(1)),
        (&[(0, 0x83, u32::MAX, u32::MAX)], MbrError::Range(1)),
        (&[(0, 0x83, 10, 10), (0, 0x07, 19, 10)], MbrError::Overlap(1, 2)),
        (&[(0, 0x05, 10, 10), (0, 0x07, 12, 2)], MbrError::Overlap(1, 2)),
        (&[(0, 0x05, 10, 10), (0, 0x0f, 30, 2)], MbrError::TwoExtended),
    ] {
        assert_eq!(record(&sector(entries), 100), Err(error), "{entries:?}");
    }
}

#[test]
fn chains() {
    let link = |kind, at| (0, kind, at, 10);
    assert_eq!(
        walk((100, 100), &[(100, sector(&[(0, 0x83, 1, 9), link(5, 20)])), (120, sector(&[(0, 7, 2, 8), link(0, 0)]))]),
        Ok(vec![(5, 101, 9), (6, 122, 8)])
    );
    // An empty first record, as some tools leave it.
    assert_eq!(
        walk((100, 100), &[(100, sector(&[(0, 0, 0, 0), link(5, 20)])), (120, sector(&[(0, 7, 2, 8)]))]),
        Ok(vec![(5, 122, 8)])
    );
    assert_eq!(walk((100, 100), &[(100, sector(&[link(5, 0)]))]), Err(MbrError::Loop));
    assert_eq!(
        walk(
            (100, 100),
            &[(100, sector(&[link(5, 20)])), (120, sector(&[link(5, 40)])), (140, sector(&[link(5, 20)]))]
        ),
        Err(MbrError::Loop)
    );
    assert_eq!(walk((100, 100), &[(100, sector(&[link(5, 20)]))]), Err(MbrError::NoRecord));
    assert_eq!(walk((100, 100), &[(100, sector(&[link(5, 100)]))]), Err(MbrError::Range(6)));
    assert_eq!(walk((100, 100), &[(100, sector(&[(0, 0x83, 1, 100)]))]), Err(MbrError::Range(5)));
    assert_eq!(walk((100, 100), &[(100, sector(&[(0, 0x83, 0, 10)]))]), Err(MbrError::Range(5)), "over its record");
    assert_eq!(
        walk((100, 100), &[(100, sector(&[(0, 0x83, 1, 60), link(5, 20)])), (120, sector(&[(0, 0x83, 1, 5)]))]),
        Err(MbrError::Overlap(5, 6))
    );
    let long: Vec<_> = (0..200).map(|at| (100 + at, sector(&[link(5, at as u32 + 1)]))).collect();
    assert_eq!(walk((100, 1000), &long), Err(MbrError::TooMany));
}

#[test]
fn any_bytes_are_survived() {
    let mut random = undercroft_hosts::Random::new(3);
    for _ in 0..50_000 {
        let mut block = sector(&[(0, 5, 1, 50), (0, 0x83, 60, 5), (0, 7, 70, 5)]);
        for _ in 0..1 + random.below(8) {
            block[446 + random.below(64)] = random.below(256) as u8;
        }
        if let Ok(Record::Table { entries, extended }) = record(&block, 100) {
            assert!(entries.iter().all(|entry| entry.first + entry.blocks <= 100));
            if let Some(extended) = extended {
                let mut chain = Chain::new(extended);
                let _ = chain.step(&block);
            }
        }
    }
}
