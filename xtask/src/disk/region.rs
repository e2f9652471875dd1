//! The bytes of a disk that the write phase may overwrite.

use anyhow::{Result, bail};

use super::gpt::Table;

/// Name of the partition that the write phase may overwrite without being told a range.
pub const SCRATCH: &str = "undercroft-scratch";

/// Bytes `start` to `start + length` of a disk; never empty, never past 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub start: u64,
    pub length: u64,
}

impl Region {
    pub fn end(&self) -> u64 {
        self.start + self.length
    }
}

/// What was found at both ends of a disk.
#[derive(Clone, Debug, PartialEq)]
pub enum Contents {
    /// A partition table.
    Gpt(Table),
    /// No GPT, but something that is not zeros.
    Something,
    /// Zeros at both ends: neither a table nor a file system.
    Blank,
}

/// Chooses what may be overwritten on a disk that the user gave with `rw`.
///
/// # Errors
/// Says why nothing may be written, or why not there.
pub fn choose(asked: Option<Region>, contents: &Contents, disk_bytes: u64, block_size: u32) -> Result<Region> {
    let block = u64::from(block_size);
    let Some(region) = asked else {
        return match contents {
            Contents::Blank => Ok(Region { start: 0, length: disk_bytes }),
            Contents::Something => bail!(
                "it is not blank and has no partition named {SCRATCH}; say which bytes may be overwritten \
                 with rw=START:LENGTH"
            ),
            Contents::Gpt(table) => scratch(table, disk_bytes),
        };
    };
    if region.end() > disk_bytes {
        bail!("the range {}:{} ends beyond the disk's {disk_bytes} bytes", region.start, region.length);
    }
    if !region.start.is_multiple_of(block) || !region.length.is_multiple_of(block) {
        bail!("the range {}:{} is not in whole blocks of {block} bytes", region.start, region.length);
    }
    Ok(region)
}

fn scratch(table: &Table, disk_bytes: u64) -> Result<Region> {
    let mut named = table.partitions.iter().filter(|p| p.name == SCRATCH);
    let Some(partition) = named.next() else {
        bail!(
            "it has a partition table without a partition named {SCRATCH}; say which bytes may be overwritten \
             with rw=START:LENGTH"
        );
    };
    if named.next().is_some() {
        bail!("it has more than one partition named {SCRATCH}; say which bytes with rw=START:LENGTH");
    }
    let region = partition.region;
    if region.length == 0 || region.end() > disk_bytes {
        bail!("its partition {SCRATCH} does not lie within the disk's {disk_bytes} bytes");
    }
    let overlaps = |other: &Region| other != &region && other.start < region.end() && region.start < other.end();
    if table.partitions.iter().any(|p| overlaps(&p.region)) {
        bail!("its partition {SCRATCH} overlaps another partition");
    }
    Ok(region)
}

#[cfg(test)]
mod tests {
    use super::super::gpt::Partition;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn table(partitions: &[(&str, u64, u64)]) -> Contents {
        let partitions = partitions
            .iter()
            .map(|&(name, start, length)| Partition { name: name.into(), region: Region { start, length } })
            .collect();
        Contents::Gpt(Table { block_size: 512, partitions })
    }

    fn error(asked: Option<Region>, contents: &Contents) -> String {
        choose(asked, contents, 8 * MIB, 512).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_blank_disk_is_taken_whole() {
        let whole = Region { start: 0, length: 8 * MIB };
        assert_eq!(choose(None, &Contents::Blank, 8 * MIB, 512).unwrap(), whole);
    }

    #[test]
    fn the_scratch_partition_is_taken_and_no_other() {
        let contents = table(&[("data", MIB, MIB), (SCRATCH, 2 * MIB, MIB), ("more", 3 * MIB, MIB)]);
        let region = Region { start: 2 * MIB, length: MIB };
        assert_eq!(choose(None, &contents, 8 * MIB, 512).unwrap(), region);
    }

    #[test]
    fn anything_else_asks_for_a_range() {
        assert!(error(None, &Contents::Something).contains("rw=START:LENGTH"));
        assert!(error(None, &table(&[("data", MIB, MIB)])).contains("rw=START:LENGTH"));
        assert!(error(None, &table(&[(SCRATCH, MIB, MIB), (SCRATCH, 2 * MIB, MIB)])).contains("more than one"));
    }

    #[test]
    fn a_scratch_partition_that_lies_is_refused() {
        assert!(error(None, &table(&[(SCRATCH, 7 * MIB, 2 * MIB)])).contains("within"));
        assert!(error(None, &table(&[("data", MIB, 2 * MIB), (SCRATCH, 2 * MIB, MIB)])).contains("overlaps"));
    }

    #[test]
    fn a_range_must_lie_on_the_disk_in_whole_blocks() {
        let inside = Region { start: 512, length: 1024 };
        assert_eq!(choose(Some(inside), &Contents::Something, 8 * MIB, 512).unwrap(), inside);
        assert!(error(Some(Region { start: 8 * MIB, length: 512 }), &Contents::Blank).contains("beyond"));
        assert!(error(Some(Region { start: 100, length: 512 }), &Contents::Blank).contains("whole blocks"));
        assert!(error(Some(Region { start: 512, length: 100 }), &Contents::Blank).contains("whole blocks"));
        assert!(choose(Some(inside), &Contents::Blank, 8 * MIB, 4096).is_err());
    }
}
