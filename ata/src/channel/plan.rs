//! From a request and how far it has come to the next command. Bottom half.

use undercroft_block::{Op, Request};

use super::pieces;
use crate::defect::{Defect, Defects};
use crate::identify::{Identified, MOST_SHORT};
use crate::registers::TaskFile;
use crate::wire::{Command, feature};

/// Bytes of one command at most: what a drive may hold its neighbour up for.
const MOST_BYTES: usize = 1 << 20;
/// Sectors of a command with a count of 8 bits.
const SHORT_COUNT: u64 = 256;

/// How a command's data moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It has none.
    None,
    /// By the CPU, from the drive.
    PioIn,
    /// By the CPU, to the drive.
    PioOut,
    /// By the bus master.
    Dma {
        /// From the drive.
        to_memory: bool,
    },
}

/// Whose memory a command's data is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The request's, or nobody's.
    Request,
    /// The bounce buffer.
    Bounce,
    /// The ranges of a TRIM.
    Ranges,
}

/// A command to issue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) task: TaskFile,
    pub(super) kind: Kind,
    pub(super) source: Source,
    /// Bytes of the request's data that it moves.
    pub(super) bytes: usize,
    /// Bytes of a block of programmed I/O.
    pub(super) block: usize,
}

/// Segments of a request at most: what does not fit one table takes several commands, so this is a courtesy.
pub(crate) const SEGMENTS: u16 = 1024;

/// What of a drive decides about commands, as it is now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Means {
    pub(super) ext: bool,
    pub(super) dma: bool,
    pub(super) fua: bool,
    pub(super) sector_bytes: u32,
    /// What SET MULTIPLE MODE was told; 0 for plain commands.
    pub(super) multiple: u8,
    pub(super) flush: Option<Command>,
}

impl Means {
    /// Of a drive behind a channel that has a bus master and memory for it, or not.
    pub(super) fn of(drive: &Identified, dma: bool) -> Self {
        Self {
            ext: drive.ext,
            dma: drive.dma && dma,
            fua: drive.fua && dma,
            sector_bytes: drive.sector_bytes,
            multiple: drive.multiple,
            flush: drive.flush,
        }
    }
}

/// The next command of `request`, of whose data `done` bytes went over. A flush or a TRIM is one command.
pub(super) fn plan(means: &Means, request: &Request, done: usize, defects: Defects) -> Plan {
    let dataless = |task| Plan { task, kind: Kind::None, source: Source::Request, bytes: 0, block: 0 };
    match request.op {
        Op::Read | Op::Write => transfer(means, request, done, defects),
        Op::Flush | Op::WriteZeroes => dataless(TaskFile::plain(means.flush.unwrap_or(Command::FLUSH_CACHE), 0, 0)),
        Op::Discard => Plan {
            task: TaskFile {
                command: Command::DATA_SET_MANAGEMENT,
                features: u16::from(feature::TRIM),
                count: 1,
                lba: 0,
                ext: true,
            },
            kind: Kind::Dma { to_memory: false },
            source: Source::Ranges,
            bytes: 0,
            block: 0,
        },
    }
}

fn transfer(means: &Means, request: &Request, done: usize, defects: Defects) -> Plan {
    let sector = means.sector_bytes as usize;
    let mut lba = request.lba + (done / sector) as u64;
    if defects.has(Defect::CutsSectors) {
        lba &= u64::from(u32::MAX);
    }
    let left = request.data.len() - done;
    let fua = request.fua && request.op == Op::Write && means.fua;
    let most = if means.ext { MOST_BYTES } else { SHORT_COUNT as usize * sector };
    let most = left.min(most);
    let (bytes, bounced) =
        if means.dma { pieces::fit(&request.data, done, most, sector, defects) } else { (most, false) };
    let bytes = if means.dma { bytes } else { bytes.min(SHORT_COUNT as usize * sector) };
    let count = (bytes / sector) as u64;
    let ext = fua || count > SHORT_COUNT || lba + count > MOST_SHORT;
    let to_memory = request.op == Op::Read;
    let multiple = means.multiple > 0;
    let (kind, command) = match (means.dma, to_memory) {
        (true, true) => (Kind::Dma { to_memory }, if ext { Command::READ_DMA_EXT } else { Command::READ_DMA }),
        (true, false) if fua => (Kind::Dma { to_memory }, Command::WRITE_DMA_FUA_EXT),
        (true, false) => (Kind::Dma { to_memory }, if ext { Command::WRITE_DMA_EXT } else { Command::WRITE_DMA }),
        (false, true) => (Kind::PioIn, pio_in(multiple, ext)),
        (false, false) => (Kind::PioOut, pio_out(multiple, ext)),
    };
    Plan {
        // A count of all ones and one more is 0, in 8 bits as in 16.
        task: TaskFile { command, features: 0, count: count as u16, lba, ext },
        kind,
        source: if bounced { Source::Bounce } else { Source::Request },
        bytes,
        block: sector * usize::from(means.multiple.max(1)),
    }
}

const fn pio_in(multiple: bool, ext: bool) -> Command {
    match (multiple, ext) {
        (true, true) => Command::READ_MULTIPLE_EXT,
        (true, false) => Command::READ_MULTIPLE,
        (false, true) => Command::READ_SECTORS_EXT,
        (false, false) => Command::READ_SECTORS,
    }
}

const fn pio_out(multiple: bool, ext: bool) -> Command {
    match (multiple, ext) {
        (true, true) => Command::WRITE_MULTIPLE_EXT,
        (true, false) => Command::WRITE_MULTIPLE,
        (false, true) => Command::WRITE_SECTORS_EXT,
        (false, false) => Command::WRITE_SECTORS,
    }
}
