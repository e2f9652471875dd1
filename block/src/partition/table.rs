//! Reading a disk's partition table. Task context.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use undercroft_hal::Task;
use undercroft_hal::dma::{DmaBuf, DmaConstraints};

use super::gpt::{self, GptError};
use super::mbr::{self, Chain, MbrError, Record};
use crate::adapter::Disk;
use crate::broken::{self, Hazard};
use crate::{Error, Piece};

/// What a partition is for, as its table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A GPT partition type, as on disk: the first three fields are little-endian.
    Gpt([u8; 16]),
    /// An MBR partition type.
    Mbr(u8),
}

impl Kind {
    /// The usual name of a usual type.
    pub fn name(&self) -> Option<&'static str> {
        // First the time fields of the GUID, as written, then the rest.
        const fn guid(a: u32, b: u16, c: u16, rest: u64) -> [u8; 16] {
            let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
            let [d, e, f, g, h, i, j, k] = rest.to_be_bytes();
            [a0, a1, a2, a3, b0, b1, c0, c1, d, e, f, g, h, i, j, k]
        }
        const NAMES: [([u8; 16], &str); 5] = [
            (guid(0x0fc6_3daf, 0x8483, 0x4772, 0x8e79_3d69_d847_7de4), "linux"),
            (guid(0x0657_fd6d, 0xa4ab, 0x43c4, 0x84e5_0933_c84b_4f4f), "linux-swap"),
            (guid(0xc12a_7328, 0xf81f, 0x11d2, 0xba4b_00a0_c93e_c93b), "efi-system"),
            (guid(0xebd0_a0a2, 0xb9e5, 0x4433, 0x87c0_68b6_b726_99c7), "basic-data"),
            (guid(0x2168_6148, 0x6449, 0x6e6f, 0x744e_6565_6445_4649), "bios-boot"),
        ];
        match self {
            Self::Gpt(kind) => NAMES.iter().find(|(guid, _)| guid == kind).map(|(_, name)| *name),
            Self::Mbr(0x83) => Some("linux"),
            Self::Mbr(0x82) => Some("linux-swap"),
            Self::Mbr(0x07) => Some("ntfs"),
            Self::Mbr(0x01 | 0x04 | 0x06 | 0x0b | 0x0c | 0x0e) => Some("fat"),
            Self::Mbr(0xef) => Some("efi-system"),
            Self::Mbr(_) => None,
        }
    }
}

impl fmt::Display for Kind {
    /// A GUID in its usual form, or two hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt(g) => {
                for at in [3, 2, 1, 0, 16, 5, 4, 16, 7, 6, 16, 8, 9, 16, 10, 11, 12, 13, 14, 15] {
                    match g.get(at) {
                        Some(byte) => write!(f, "{byte:02X}")?,
                        None => f.write_str("-")?,
                    }
                }
                Ok(())
            }
            Self::Mbr(kind) => write!(f, "{kind:02x}"),
        }
    }
}

/// One partition of a table. Its range is on the disk and overlaps no other's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the table, from 1 on; MBR logical partitions from 5 on.
    pub number: u32,
    /// First block.
    pub first: u64,
    /// Blocks; more than zero.
    pub blocks: u64,
    /// What it is for.
    pub kind: Kind,
    /// Its name, if the table has names.
    pub name: String,
}

/// Where a table was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// A GPT, by its primary header.
    Gpt,
    /// A GPT, by its backup: this is what is wrong with the primary.
    GptBackup(GptError),
    /// An MBR.
    Mbr,
}

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Where it was found.
    pub scheme: Scheme,
    /// Its partitions, in its order.
    pub entries: Vec<Entry>,
}

/// Why a disk's table cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableError {
    /// Block 0 could not be read.
    Unreadable(Error),
    /// Neither header leads to a table.
    Gpt {
        /// What is wrong with the primary.
        primary: GptError,
        /// What is wrong with the backup.
        backup: GptError,
    },
    /// The MBR or its extended partition is wrong.
    Mbr(MbrError),
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "block 0: {error}"),
            Self::Gpt { primary, backup } => write!(f, "GPT: primary: {primary}; backup: {backup}"),
            Self::Mbr(error) => write!(f, "MBR: {error}"),
        }
    }
}

impl core::error::Error for TableError {}

/// Reads blocks of one disk, as many as fit the buffer at a time.
struct Reader<'a> {
    cx: &'a Task,
    disk: &'a Disk,
    block_size: usize,
    buffer: Option<DmaBuf>,
}

impl Reader<'_> {
    /// Calls `f` with one block.
    fn block<R>(&mut self, lba: u64, f: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
        let buffer = match self.buffer.take() {
            Some(buffer) => buffer,
            None => {
                let mut constraints = self.disk.device().info().limits.dma;
                if broken::is(Hazard::AnyBuffer) {
                    constraints = DmaConstraints::ANY;
                }
                let bytes = if broken::is(Hazard::ReadsSectors) { 512 } else { self.block_size };
                DmaBuf::new(bytes, constraints).map_err(|_| Error::NoMemory)?
            }
        };
        let (data, result) = match self.disk.read_blocking(self.cx, lba, Piece::from(buffer)) {
            Ok(data) => (data, Ok(())),
            Err(failed) => (failed.data, Err(failed.error)),
        };
        let buffer = data.into_buf().map_err(|_| Error::Broken)?;
        let value = result.map(|()| f(&buffer));
        self.buffer = Some(buffer);
        value
    }

    fn gpt(&mut self, at: u64, capacity: u64) -> Result<Vec<Entry>, GptError> {
        let header = self.block(at, |block| gpt::header(block, at, capacity)).map_err(GptError::Unreadable)??;
        let mut array = Vec::new();
        array.try_reserve_exact(header.array_bytes() as usize).map_err(|_| GptError::Unreadable(Error::NoMemory))?;
        for lba in 0..header.array_blocks(self.block_size as u32) {
            let left = header.array_bytes() as usize - array.len();
            self.block(header.entries_lba + lba, |block| array.extend_from_slice(&block[..left.min(block.len())]))
                .map_err(GptError::Unreadable)?;
        }
        gpt::entries(&header, &array)
    }
}

/// Reads a disk's table: GPT by its primary or its backup, else MBR; `None` if there is none.
///
/// # Errors
/// [`TableError`] if there is one and it cannot be used.
pub fn read(cx: &Task, disk: &Disk) -> Result<Option<Table>, TableError> {
    let info = disk.device().info();
    let capacity = info.capacity;
    let mut reader = Reader { cx, disk, block_size: info.block_size as usize, buffer: None };
    let record = reader
        .block(0, |block| mbr::record(block, capacity))
        .map_err(TableError::Unreadable)?
        .map_err(TableError::Mbr)?;
    match record {
        Record::None => Ok(None),
        Record::Protective => {
            let primary = match reader.gpt(1, capacity) {
                Ok(entries) => return Ok(Some(Table { scheme: Scheme::Gpt, entries })),
                Err(primary) if broken::is(Hazard::NoBackup) => {
                    return Err(TableError::Gpt { primary, backup: GptError::NoHeader });
                }
                Err(error) => error,
            };
            match reader.gpt(capacity.saturating_sub(1), capacity) {
                Ok(entries) => Ok(Some(Table { scheme: Scheme::GptBackup(primary), entries })),
                Err(backup) => Err(TableError::Gpt { primary, backup }),
            }
        }
        Record::Table { mut entries, extended } => {
            if let Some(extended) = extended {
                let mut chain = Chain::new(extended);
                while let Some(lba) = chain.next() {
                    let step = reader.block(lba, |block| chain.step(block));
                    step.map_err(|error| TableError::Mbr(MbrError::Unreadable(error)))?.map_err(TableError::Mbr)?;
                }
                entries.extend(chain.into_entries());
            }
            Ok(Some(Table { scheme: Scheme::Mbr, entries }))
        }
    }
}
