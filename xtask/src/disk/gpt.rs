//! GUID partition tables (UEFI 2.10, 5.3) in files: written for prepared disks, read on the
//! user's, with blocks of 512 or 4096 bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use gpt::disk::LogicalBlockSize;
use gpt::{GptConfig, partition_types};
use uuid::Uuid;

use super::pattern::mix;
use super::region::Region;

/// A partition table as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The size of the blocks the table is laid out in.
    pub block_size: u32,
    pub partitions: Vec<Partition>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Partition {
    pub name: String,
    pub region: Region,
}

/// A partition to write.
pub struct NewPartition {
    pub name: &'static str,
    pub kind: partition_types::Type,
    pub region: Region,
}

fn block_size_of(bytes: u32) -> Result<LogicalBlockSize> {
    LogicalBlockSize::try_from(u64::from(bytes)).with_context(|| format!("blocks of {bytes} bytes"))
}

/// Writes a table to the file at `path`: protective MBR, both headers, both arrays. The GUIDs
/// follow from `seed`. The regions must be in whole blocks.
pub fn write(path: &Path, block_size: u32, seed: u64, partitions: &[NewPartition]) -> Result<()> {
    let say = || format!("cannot write a partition table to {}", path.display());
    let block = u64::from(block_size);
    let mut file = File::options().read(true).write(true).open(path).with_context(say)?;
    let blocks = file.metadata().with_context(say)?.len() / block;
    gpt::mbr::ProtectiveMBR::with_lb_size(u32::try_from(blocks - 1).unwrap_or(u32::MAX))
        .overwrite_lba0(&mut file)
        .with_context(say)?;
    let mut disk = GptConfig::new()
        .writable(true)
        .logical_block_size(block_size_of(block_size)?)
        .create_from_device(file, Some(guid(seed, 0)))
        .with_context(say)?;
    let mut entries = BTreeMap::new();
    for (index, new) in (1u32..).zip(partitions) {
        let entry = gpt::partition::Partition {
            part_type_guid: new.kind.clone(),
            part_guid: guid(seed, index),
            first_lba: new.region.start / block,
            last_lba: new.region.end() / block - 1,
            flags: 0,
            name: new.name.into(),
        };
        entries.insert(index, entry);
    }
    disk.update_partitions(entries).with_context(say)?;
    disk.write().with_context(say)?;
    Ok(())
}

/// A version 4 GUID that follows from a seed.
pub fn guid(seed: u64, index: u32) -> Uuid {
    let high = mix(seed.wrapping_add(u64::from(index) << 32) ^ 0x6775_6964);
    uuid::Builder::from_random_bytes((u128::from(high) << 64 | u128::from(mix(high))).to_be_bytes()).into_uuid()
}

/// Reads the table of a file, whichever block size it is laid out in. `None`: there is none that
/// is valid. Entries that make no sense are left out.
pub fn read(file: &File) -> Option<Table> {
    [512, 4096].into_iter().find_map(|block_size| read_with(file, block_size))
}

fn read_with(file: &File, block_size: u32) -> Option<Table> {
    let block = u64::from(block_size);
    let file = file.try_clone().ok()?;
    let disk = GptConfig::new().logical_block_size(block_size_of(block_size).ok()?).open_from_device(file).ok()?;
    let region = |first: u64, last: u64| {
        let start = first.checked_mul(block)?;
        let length = last.checked_sub(first)?.checked_add(1)?.checked_mul(block)?;
        start.checked_add(length).map(|_| Region { start, length })
    };
    let used = disk.partitions().values().filter(|p| p.is_used());
    let partitions = used
        .filter_map(|p| Some(Partition { name: p.name.clone(), region: region(p.first_lba, p.last_lba)? }))
        .collect();
    Some(Table { block_size, partitions })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::process::Command;

    use super::*;
    use crate::host::program;

    const MIB: u64 = 1 << 20;

    fn new_disk(block_size: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(16 * MIB).unwrap();
        let partitions = [
            NewPartition {
                name: "first",
                kind: partition_types::LINUX_FS,
                region: Region { start: MIB, length: 4 * MIB },
            },
            NewPartition {
                name: "undercroft-scratch",
                kind: partition_types::BASIC,
                region: Region { start: 5 * MIB, length: 2 * MIB },
            },
        ];
        write(file.path(), block_size, 3, &partitions).unwrap();
        file
    }

    fn le(bytes: &[u8]) -> u64 {
        bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    /// Reads the structures by hand, at the places the specification gives for this block size.
    fn check_by_hand(block_size: u32) {
        let disk = new_disk(block_size);
        let mut bytes = Vec::new();
        disk.as_file().seek(SeekFrom::Start(0)).unwrap();
        disk.as_file().read_to_end(&mut bytes).unwrap();
        let block = block_size as usize;
        let last = bytes.len() as u64 / u64::from(block_size) - 1;
        assert_eq!(bytes[510..512], [0x55, 0xAA], "signature of the protective MBR");
        assert_eq!(bytes[450], 0xEE, "kind of the protective partition");
        assert_eq!(le(&bytes[458..462]), last, "length of the protective partition");
        for (header, my_lba, alternate) in [(block, 1, last), (last as usize * block, last, 1)] {
            assert_eq!(&bytes[header..header + 8], b"EFI PART");
            assert_eq!(le(&bytes[header + 24..header + 32]), my_lba);
            assert_eq!(le(&bytes[header + 32..header + 40]), alternate);
            let array = le(&bytes[header + 72..header + 80]) as usize * block;
            let entry = |index: usize| {
                let at = array + 128 * index;
                (le(&bytes[at + 32..at + 40]), le(&bytes[at + 40..at + 48]))
            };
            let lba = |bytes: u64| bytes / u64::from(block_size);
            assert_eq!(entry(0), (lba(MIB), lba(5 * MIB) - 1));
            assert_eq!(entry(1), (lba(5 * MIB), lba(7 * MIB) - 1));
        }
    }

    #[test]
    fn blocks_of_512_bytes_are_laid_out_as_specified() {
        check_by_hand(512);
    }

    #[test]
    fn blocks_of_4096_bytes_are_laid_out_as_specified() {
        check_by_hand(4096);
    }

    #[test]
    fn what_was_written_is_read_back() {
        for block_size in [512, 4096] {
            let table = read(new_disk(block_size).as_file()).unwrap();
            assert_eq!(table.block_size, block_size);
            assert_eq!(table.partitions[1].name, "undercroft-scratch");
            assert_eq!(table.partitions[1].region, Region { start: 5 * MIB, length: 2 * MIB });
        }
    }

    #[test]
    fn sgdisk_finds_nothing_wrong() {
        let sgdisk = program::find("sgdisk").expect("this test needs sgdisk (apt-get install gdisk)");
        let disk = new_disk(512);
        let run = |option: &str| {
            let output = Command::new(&sgdisk).arg(option).arg(disk.path()).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert!(run("--verify").contains("No problems found"), "{}", run("--verify"));
        assert!(run("--print").contains("undercroft-scratch"), "{}", run("--print"));
        // The check can fail: one flipped bit in the array of partitions, and it does.
        let mut file = disk.as_file();
        file.seek(SeekFrom::Start(1024 + 60)).unwrap();
        file.write_all(b"!").unwrap();
        assert!(!run("--verify").contains("No problems found"));
    }

    #[test]
    fn noise_and_emptiness_are_no_table() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(read(file.as_file()), None);
        file.as_file().set_len(MIB).unwrap();
        assert_eq!(read(file.as_file()), None);
        let noise: Vec<u8> = (0..MIB / 8).flat_map(|i| mix(i).to_le_bytes()).collect();
        std::fs::write(file.path(), noise).unwrap();
        assert_eq!(read(file.as_file()), None);
    }
}
