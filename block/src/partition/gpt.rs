//! GUID partition tables. Pure functions; any context that may allocate.
//!
//! Source: UEFI 2.10, 5.3. The `gpt_disk_types` crate is the independent writer in this module's tests; it is not the parser, because its header
//! checksum covers 92 bytes and a legal header may be longer.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::crc32::crc32;
use super::{Entry, Kind};

/// The header on disk (UEFI 2.10, table 5-5).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    signature: [u8; 8],
    revision: U32,
    header_size: U32,
    header_crc: U32,
    reserved: U32,
    my_lba: U64,
    alternate_lba: U64,
    first_usable: U64,
    last_usable: U64,
    disk_guid: [u8; 16],
    entries_lba: U64,
    entries: U32,
    entry_size: U32,
    entries_crc: U32,
}

const _: () = assert!(size_of::<RawHeader>() == 92);
const _: () = assert!(core::mem::offset_of!(RawHeader, header_crc) == 16);

/// An entry on disk (UEFI 2.10, table 5-6).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    kind: [u8; 16],
    unique: [u8; 16],
    first: U64,
    last: U64,
    attributes: U64,
    name: [u8; 72],
}

const _: () = assert!(size_of::<RawEntry>() == 128);

/// Bytes of the longest entry array that is read: 8,192 entries of the usual size.
pub const MAX_ARRAY: u32 = 1 << 20;

/// What is wrong with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GptError {
    /// There is no header.
    NoHeader,
    /// A revision other than 1.x.
    Revision,
    /// The header's size is impossible.
    HeaderSize,
    /// The header's checksum does not match.
    HeaderChecksum,
    /// The header says that it is in another place.
    WrongPlace,
    /// The usable range, or the entry array, is not on the disk, or one lies in the other.
    Range,
    /// The size of an entry is not 128 × 2^n, or the array is longer than [`MAX_ARRAY`].
    EntrySize,
    /// The entry array's checksum does not match.
    EntryChecksum,
    /// The numbered entry is not wholly in the usable range, or ends before it starts.
    EntryRange(u32),
    /// The numbered entries overlap.
    Overlap(u32, u32),
    /// Its blocks could not be read.
    Unreadable(crate::Error),
}

impl fmt::Display for GptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeader => f.write_str("no header"),
            Self::Revision => f.write_str("unknown revision"),
            Self::HeaderSize => f.write_str("impossible header size"),
            Self::HeaderChecksum => f.write_str("wrong header checksum"),
            Self::WrongPlace => f.write_str("the header says that it is elsewhere"),
            Self::Range => f.write_str("the header's ranges are not possible on this disk"),
            Self::EntrySize => f.write_str("impossible size of entries"),
            Self::EntryChecksum => f.write_str("wrong checksum of entries"),
            Self::EntryRange(entry) => write!(f, "entry {entry} is out of range"),
            Self::Overlap(one, other) => write!(f, "entries {one} and {other} overlap"),
            Self::Unreadable(error) => error.fmt(f),
        }
    }
}

/// A header that makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Where the other header is.
    pub alternate_lba: u64,
    /// First block that partitions may use.
    pub first_usable: u64,
    /// Last block that partitions may use.
    pub last_usable: u64,
    /// First block of the entry array.
    pub entries_lba: u64,
    /// Entries in the array.
    pub entries: u32,
    /// Bytes of an entry.
    pub entry_size: u32,
    entries_crc: u32,
}

impl Header {
    /// Bytes of the entry array: at most [`MAX_ARRAY`].
    pub const fn array_bytes(&self) -> u32 {
        self.entries * self.entry_size
    }

    /// Blocks of the entry array.
    pub const fn array_blocks(&self, block_size: u32) -> u64 {
        (self.array_bytes() as u64).div_ceil(block_size as u64)
    }
}

/// Parses the header in `block`, one whole block read from block `at` of a disk of `capacity` blocks.
///
/// # Errors
/// The first check that fails.
pub fn header(block: &[u8], at: u64, capacity: u64) -> Result<Header, GptError> {
    let (raw, _) = RawHeader::read_from_prefix(block).map_err(|_| GptError::NoHeader)?;
    if &raw.signature != b"EFI PART" {
        return Err(GptError::NoHeader);
    }
    if raw.revision.get() >> 16 != 1 {
        return Err(GptError::Revision);
    }
    let size = raw.header_size.get() as usize;
    let whole = block.get(..size).filter(|_| size >= size_of::<RawHeader>()).ok_or(GptError::HeaderSize)?;
    if crc32(&[&whole[..16], &[0; 4], &whole[20..]]) != raw.header_crc.get() {
        return Err(GptError::HeaderChecksum);
    }
    if raw.my_lba.get() != at {
        return Err(GptError::WrongPlace);
    }
    let (entries, entry_size) = (raw.entries.get(), raw.entry_size.get());
    let legal = entry_size >= 128 && entry_size.is_power_of_two();
    if !legal || entries.checked_mul(entry_size).is_none_or(|bytes| bytes > MAX_ARRAY) {
        return Err(GptError::EntrySize);
    }
    let header = Header {
        alternate_lba: raw.alternate_lba.get(),
        first_usable: raw.first_usable.get(),
        last_usable: raw.last_usable.get(),
        entries_lba: raw.entries_lba.get(),
        entries,
        entry_size,
        entries_crc: raw.entries_crc.get(),
    };
    let array_blocks = header.array_blocks(block.len() as u32);
    let array_end =
        header.entries_lba.checked_add(array_blocks).filter(|end| *end <= capacity).ok_or(GptError::Range)?;
    // The usable range may be empty (first just behind last), but not reversed further.
    let usable_end = header.last_usable.checked_add(1).filter(|end| *end <= capacity).ok_or(GptError::Range)?;
    let holds_header = (header.first_usable..usable_end).contains(&at);
    let holds_array = header.entries_lba < usable_end && header.first_usable < array_end && array_blocks != 0;
    let array_holds_header = (header.entries_lba..array_end).contains(&at);
    // Blocks 0 and 1 are the protective MBR and the primary header.
    if header.first_usable > usable_end || header.first_usable < 2 || header.entries_lba < 2 {
        return Err(GptError::Range);
    }
    if holds_header || holds_array || array_holds_header {
        return Err(GptError::Range);
    }
    Ok(header)
}

/// Parses the entry array, `array` starting with its bytes. Partition numbers count from 1, empty entries included.
///
/// # Errors
/// The first check that fails: a table with one impossible entry is not used at all.
pub fn entries(header: &Header, array: &[u8]) -> Result<Vec<Entry>, GptError> {
    let array = array.get(..header.array_bytes() as usize).ok_or(GptError::EntryChecksum)?;
    if crc32(&[array]) != header.entries_crc {
        return Err(GptError::EntryChecksum);
    }
    let mut found: Vec<Entry> = Vec::new();
    for (number, bytes) in (1u32..).zip(array.chunks_exact((header.entry_size as usize).max(128))) {
        let Ok((raw, _)) = RawEntry::read_from_prefix(bytes) else { continue };
        if raw.kind == [0; 16] {
            continue;
        }
        let (first, last) = (raw.first.get(), raw.last.get());
        if first > last || first < header.first_usable || last > header.last_usable {
            return Err(GptError::EntryRange(number));
        }
        // In range, so neither the difference nor the sum overflows.
        found.push(Entry { number, first, blocks: last - first + 1, kind: Kind::Gpt(raw.kind), name: name(&raw.name) });
    }
    let mut order: Vec<&Entry> = found.iter().collect();
    order.sort_unstable_by_key(|entry| entry.first);
    for pair in order.windows(2) {
        if pair[0].first + pair[0].blocks > pair[1].first {
            return Err(GptError::Overlap(pair[0].number, pair[1].number));
        }
    }
    Ok(found)
}

/// A name: UTF-16, ended by zero; what is not UTF-16 becomes the replacement character.
fn name(bytes: &[u8; 72]) -> String {
    let units = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0);
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

#[cfg(test)]
#[path = "gpt_tests.rs"]
mod tests;
