//! Transfers between a volume and its device, made when the volume is. A write-back has a buffer of its own, a read goes into the pages themselves, and has
//! the list of their pieces. Under the volume's lock.

use alloc::boxed::Box;
use alloc::vec::Vec;

use undercroft_block::{Data, Error, Piece};
use undercroft_hal::dma::{DmaBuf, DmaConstraints};

use crate::memory::filled;
use crate::table::{NONE, PAGE};

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Idle,
    /// To be sent.
    Queued,
    /// The device has it, and its data.
    Sent,
}

/// A run of pages, read or written together.
#[derive(Debug)]
pub(crate) struct Io {
    pub(crate) stage: Stage,
    /// A write-back's buffer, while it is here.
    pub(crate) buf: Option<DmaBuf>,
    /// A read's list of pieces, while there is none in it.
    pub(crate) list: Option<Vec<Piece>>,
    /// A device kept a read's data: its pages, and this.
    pub(crate) lost: bool,
    /// What a read that is queued is to be sent with.
    pub(crate) data: Data,
    /// The first page's index.
    pub(crate) first: u64,
    /// Pages of the run.
    pub(crate) count: u32,
    /// The pages' slots; for a write also the epochs that it makes up for.
    pub(crate) pages: Box<[(u32, u32)]>,
}

impl Io {
    fn new(pages: usize) -> Result<Self, Error> {
        let pages = filled(pages, |_| (NONE, 0))?;
        Ok(Self { stage: Stage::Idle, buf: None, list: None, lost: false, data: Data::None, first: 0, count: 0, pages })
    }

    /// A read of up to so many pages, in so many pieces.
    pub(crate) fn read(pages: usize, pieces: usize) -> Result<Self, Error> {
        let mut list = Vec::new();
        list.try_reserve_exact(pieces.min(pages)).map_err(|_| Error::NoMemory)?;
        Ok(Self { list: Some(list), ..Self::new(pages)? })
    }

    /// A write-back of up to so many pages.
    pub(crate) fn write(pages: usize, constraints: DmaConstraints) -> Result<Self, Error> {
        let buf = DmaBuf::new(pages * PAGE, constraints).map_err(|_| Error::NoMemory)?;
        Ok(Self { buf: Some(buf), ..Self::new(pages)? })
    }

    /// Whether it can be used now. One whose data a device never gave back cannot.
    pub(crate) const fn is_free(&self) -> bool {
        matches!(self.stage, Stage::Idle) && !self.lost && (self.buf.is_some() || self.list.is_some())
    }

    /// Where a page is in the run.
    pub(crate) fn position(&self, index: u64) -> Option<usize> {
        let at = index.checked_sub(self.first).filter(|at| *at < u64::from(self.count))?;
        (self.stage != Stage::Idle).then_some(at as usize)
    }
}

/// What a request to the device was for: its cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Read(usize),
    Write(usize),
    Flush,
    /// A discard, by its operation.
    Discard(u16),
}

impl What {
    pub(crate) const fn cookie(self) -> u64 {
        match self {
            Self::Read(at) => at as u64,
            Self::Write(at) => 1 << 32 | at as u64,
            Self::Flush => 2 << 32,
            Self::Discard(id) => 3 << 32 | id as u64,
        }
    }

    pub(crate) const fn of(cookie: u64) -> Option<Self> {
        let at = cookie as u32;
        Some(match cookie >> 32 {
            0 => Self::Read(at as usize),
            1 => Self::Write(at as usize),
            2 => Self::Flush,
            3 => Self::Discard(at as u16),
            _ => return None,
        })
    }
}
