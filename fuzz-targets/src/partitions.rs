//! A disk's partition tables: whoever wrote the disk wrote them.
//!
//! The first byte is the block size and which checksums are put right; then records of a block's number, an offset and bytes that lie there.

use std::collections::BTreeMap;

use undercroft_block::partition::Entry;
use undercroft_block::partition::gpt;
use undercroft_block::partition::mbr::{self, Chain, Record};

use crate::Bytes;

const CAPACITY: u64 = 2048;
/// Bytes of a record.
const RECORD: usize = 20;

struct Disk {
    blocks: BTreeMap<u64, Vec<u8>>,
    size: usize,
}

impl Disk {
    fn block(&self, lba: u64) -> Vec<u8> {
        self.blocks.get(&lba).cloned().unwrap_or_else(|| vec![0; self.size])
    }

    fn from(bytes: &mut Bytes<'_>, size: usize) -> Self {
        let mut disk = Self { blocks: BTreeMap::new(), size };
        while !bytes.is_empty() {
            let (lba, offset) = (bytes.u16(), usize::from(bytes.u16()) % size);
            // As often at the end as at the beginning.
            let lba = if lba & 0x8000 == 0 { u64::from(lba) % CAPACITY } else { CAPACITY - 1 - u64::from(!lba) % 64 };
            let content = bytes.take(RECORD - 4);
            let block = disk.blocks.entry(lba).or_insert_with(|| vec![0; size]);
            let len = content.len().min(size - offset);
            block[offset..offset + len].copy_from_slice(&content[..len]);
        }
        disk
    }

    /// Makes a header of what is in a block: signature, place and checksums, which no fuzzer would find.
    fn seal(&mut self, lba: u64) {
        let mut block = self.block(lba);
        block[..8].copy_from_slice(b"EFI PART");
        block[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
        block[12..16].copy_from_slice(&92u32.to_le_bytes());
        block[24..32].copy_from_slice(&lba.to_le_bytes());
        let number = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]) as usize;
        let (first, count, bytes) = (number(72) as u64, number(80).min(64), number(84).min(128));
        let array = self.array(first, count * bytes);
        block[88..92].copy_from_slice(&crc32(&array).to_le_bytes());
        block[16..20].fill(0);
        let sum = crc32(&block[..92]);
        block[16..20].copy_from_slice(&sum.to_le_bytes());
        self.blocks.insert(lba, block);
    }

    fn array(&self, first: u64, bytes: usize) -> Vec<u8> {
        let blocks = bytes.div_ceil(self.size) as u64;
        let mut array: Vec<u8> = (0..blocks).flat_map(|at| self.block(first.wrapping_add(at))).collect();
        array.truncate(bytes);
        array
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ ((c & 1) * 0xEDB8_8320)))
}

fn check(entries: &[Entry]) {
    for (at, entry) in entries.iter().enumerate() {
        let end = entry.first.checked_add(entry.blocks);
        let clear =
            |other: &Entry| other.first >= entry.first + entry.blocks || entry.first >= other.first + other.blocks;
        assert!(entries[..at].iter().all(clear), "partitions overlap: {entries:?}");
        assert!(entry.blocks > 0 && end.is_some_and(|end| end <= CAPACITY), "a partition beyond the disk: {entry:?}");
    }
}

/// Reads GPT and MBR from a disk that the bytes describe.
///
/// # Panics
/// If a partition is not on the disk, or a chain of tables does not end.
pub fn partitions(bytes: &[u8]) {
    let bytes = &mut Bytes::new(bytes);
    let how = bytes.u8();
    let size = [512, 4096][usize::from(how & 1)];
    let mut disk = Disk::from(bytes, size);
    if how & 2 != 0 {
        disk.seal(1);
        disk.seal(CAPACITY - 1);
    }
    for at in [1, CAPACITY - 1] {
        let Ok(header) = gpt::header(&disk.block(at), at, CAPACITY) else { continue };
        let array = disk.array(header.entries_lba, header.array_bytes() as usize);
        if let Ok(entries) = gpt::entries(&header, &array) {
            check(&entries);
        }
    }
    let mut first = disk.block(0);
    if how & 4 != 0 {
        first[510..512].copy_from_slice(&[0x55, 0xaa]);
    }
    let Ok(Record::Table { entries, extended }) = mbr::record(&first, CAPACITY) else { return };
    check(&entries);
    let Some(extended) = extended else { return };
    let mut chain = Chain::new(extended);
    let mut steps = 0;
    while let Some(lba) = chain.next() {
        let mut block = disk.block(lba);
        if how & 4 != 0 {
            block[510..512].copy_from_slice(&[0x55, 0xaa]);
        }
        if chain.step(&block).is_err() {
            return;
        }
        steps += 1;
        assert!(steps <= 256, "a chain of tables without end");
    }
    check(&chain.into_entries());
}
