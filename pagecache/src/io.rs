//! Transfers between a volume and its device: each has a buffer, made when the volume is. Under the volume's lock.

use alloc::boxed::Box;

use undercroft_block::Error;
use undercroft_hal::dma::{DmaBuf, DmaConstraints};

use crate::memory::filled;
use crate::table::{NONE, PAGE};

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Idle,
    /// To be sent.
    Queued,
    /// The device has it, and its buffer.
    Sent,
}

/// A run of pages, read or written together.
#[derive(Debug)]
pub(crate) struct Io {
    pub(crate) stage: Stage,
    pub(crate) buf: Option<DmaBuf>,
    /// The first page's index.
    pub(crate) first: u64,
    /// Pages of the run.
    pub(crate) count: u32,
    /// The pages' slots; for a write also the epochs that it makes up for.
    pub(crate) pages: Box<[(u32, u32)]>,
}

impl Io {
    pub(crate) fn new(pages: usize, constraints: DmaConstraints) -> Result<Self, Error> {
        let buf = DmaBuf::new(pages * PAGE, constraints).map_err(|_| Error::NoMemory)?;
        let pages = filled(pages, |_| (NONE, 0))?;
        Ok(Self { stage: Stage::Idle, buf: Some(buf), first: 0, count: 0, pages })
    }

    /// Whether it can be used now. One whose buffer a device never gave back cannot.
    pub(crate) const fn is_free(&self) -> bool {
        matches!(self.stage, Stage::Idle) && self.buf.is_some()
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
