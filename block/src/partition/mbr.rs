//! Master boot records and extended partitions. Pure functions; any context that may allocate.
//!
//! All numbers are in logical blocks of the disk. An extended partition holds a chain of boot records, each with one logical partition
//! (relative to its record) and a link to the next record (relative to the extended partition): [`Chain`] walks it, at most
//! [`MAX_LOGICAL`] steps, and never twice over the same record.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Entry, Kind};

/// Logical partitions at most.
pub const MAX_LOGICAL: usize = 128;

/// An entry on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    /// 0x80: active; 0x00: not.
    status: u8,
    first_chs: [u8; 3],
    kind: u8,
    last_chs: [u8; 3],
    first: U32,
    blocks: U32,
}

const _: () = assert!(size_of::<Raw>() == 16);

impl Raw {
    const fn is_used(&self) -> bool {
        self.kind != 0 && self.blocks.get() != 0
    }

    const fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }
}

/// What is wrong with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MbrError {
    /// The numbered entry is not wholly on the disk, or not in its extended partition.
    Range(u32),
    /// The numbered entries overlap.
    Overlap(u32, u32),
    /// There is more than one extended partition.
    TwoExtended,
    /// A record in the chain is none.
    NoRecord,
    /// The chain comes back to a record that it has passed.
    Loop,
    /// More than [`MAX_LOGICAL`] logical partitions.
    TooMany,
    /// A record could not be read.
    Unreadable(crate::Error),
}

impl fmt::Display for MbrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(entry) => write!(f, "entry {entry} is out of range"),
            Self::Overlap(one, other) => write!(f, "entries {one} and {other} overlap"),
            Self::TwoExtended => f.write_str("two extended partitions"),
            Self::NoRecord => f.write_str("a record of the extended partition is missing"),
            Self::Loop => f.write_str("the extended partition runs in a circle"),
            Self::TooMany => f.write_str("too many logical partitions"),
            Self::Unreadable(error) => error.fmt(f),
        }
    }
}

/// A master boot record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// No partition table: nothing there, or a file system's boot sector.
    None,
    /// A protective one: the table is a GPT.
    Protective,
    /// A table.
    Table {
        /// Primary partitions.
        entries: Vec<Entry>,
        /// The extended partition's first block and blocks.
        extended: Option<(u64, u64)>,
    },
}

/// The four entries of a boot record; `None` if it is none.
fn raw(block: &[u8]) -> Option<[Raw; 4]> {
    let bytes = block.get(446..510)?;
    if block.get(510..512)? != [0x55, 0xaa] {
        return None;
    }
    let entries = <[Raw; 4]>::read_from_bytes(bytes).ok()?;
    // The boot sector of a file system has code here.
    entries.iter().all(|entry| entry.status & 0x7f == 0).then_some(entries)
}

fn entry(number: u32, raw: &Raw, base: u64) -> Entry {
    Entry {
        number,
        first: base + u64::from(raw.first.get()),
        blocks: u64::from(raw.blocks.get()),
        kind: Kind::Mbr(raw.kind),
        name: String::new(),
    }
}

/// Parses block 0 of a disk of `capacity` blocks.
///
/// # Errors
/// The first check that fails.
pub fn record(block: &[u8], capacity: u64) -> Result<Record, MbrError> {
    const PROTECTIVE: u8 = 0xee;
    let Some(raws) = raw(block) else { return Ok(Record::None) };
    // A hybrid of both kinds counts as GPT.
    if raws.iter().any(|raw| raw.kind == PROTECTIVE) {
        return Ok(Record::Protective);
    }
    let mut entries: Vec<Entry> = Vec::new();
    let mut extended = None;
    let mut taken: Vec<(u32, u64, u64)> = Vec::new();
    for (number, raw) in (1..).zip(&raws).filter(|(_, raw)| raw.is_used()) {
        let found = entry(number, raw, 0);
        let end = found.first + found.blocks;
        if found.first == 0 || end > capacity {
            return Err(MbrError::Range(number));
        }
        if let Some((other, ..)) = taken.iter().find(|(_, first, stop)| found.first < *stop && *first < end) {
            return Err(MbrError::Overlap(*other, number));
        }
        taken.push((number, found.first, end));
        if !raw.is_extended() {
            entries.push(found);
        } else if extended.replace((found.first, found.blocks)).is_some() {
            return Err(MbrError::TwoExtended);
        }
    }
    Ok(Record::Table { entries, extended })
}

/// The walk over an extended partition's chain.
#[derive(Debug)]
pub struct Chain {
    first: u64,
    end: u64,
    next: Option<u64>,
    passed: Vec<u64>,
    found: Vec<Entry>,
}

impl Chain {
    /// Starts at an extended partition, as [`record`] found it.
    pub fn new((first, blocks): (u64, u64)) -> Self {
        Self { first, end: first.saturating_add(blocks), next: Some(first), passed: Vec::new(), found: Vec::new() }
    }

    /// The block to read for the next step; `None` at the end.
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    /// Takes the next step with the block that was asked for.
    ///
    /// # Errors
    /// The first check that fails; the chain is over then.
    pub fn step(&mut self, block: &[u8]) -> Result<(), MbrError> {
        let Some(at) = self.next.take() else { return Ok(()) };
        if self.passed.contains(&at) {
            return Err(MbrError::Loop);
        }
        if self.passed.len() >= MAX_LOGICAL {
            return Err(MbrError::TooMany);
        }
        self.passed.push(at);
        let raws = raw(block).ok_or(MbrError::NoRecord)?;
        // Numbers of logical partitions start at 5; an empty record has none.
        let number = 5 + self.found.len() as u32;
        if let Some(raw) = raws.iter().find(|raw| raw.is_used() && !raw.is_extended()) {
            let logical = entry(number, raw, at);
            if logical.first <= at || logical.first + logical.blocks > self.end {
                return Err(MbrError::Range(number));
            }
            if let Some(other) = self.found.iter().find(|other| {
                logical.first < other.first + other.blocks && other.first < logical.first + logical.blocks
            }) {
                return Err(MbrError::Overlap(other.number, number));
            }
            self.found.push(logical);
        }
        if let Some(link) = raws.iter().find(|raw| raw.is_used() && raw.is_extended()) {
            let next = self.first + u64::from(link.first.get());
            if next >= self.end {
                return Err(MbrError::Range(number + 1));
            }
            self.next = Some(next);
        }
        Ok(())
    }

    /// The logical partitions.
    pub fn into_entries(self) -> Vec<Entry> {
        self.found
    }
}

#[cfg(test)]
#[path = "mbr_tests.rs"]
mod tests;
