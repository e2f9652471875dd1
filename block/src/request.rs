//! Requests and their completions.

use alloc::sync::Arc;
use core::fmt;

use undercroft_hal::{BottomHalf, Instant, is_unwinding};

use crate::broken::{self, Hazard};
use crate::{Data, Error, Info};

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// Read the range into the data.
    Read,
    /// Write the data to the range.
    Write,
    /// Make all completed writes durable. No range, no data.
    Flush,
    /// The range's content is not needed any more. No data.
    Discard,
    /// Make the range read as zeroes. No data.
    WriteZeroes,
}

/// Who is told when a request is done. Implementations are made once, not per request: the cookie tells requests apart.
pub trait Complete: Send + Sync {
    /// Takes the finished request back, with its buffers and its result. Runs in bottom-half context with no lock held; it may submit.
    fn complete(&self, cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>);
}

/// Where a finished request goes.
#[derive(Clone)]
pub struct Completion {
    sink: Arc<dyn Complete>,
    cookie: u64,
}

impl Completion {
    /// Tells `sink`, with `cookie`. Cloning the `Arc` allocates nothing.
    pub fn new(sink: Arc<dyn Complete>, cookie: u64) -> Self {
        Self { sink, cookie }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Completion({:#x})", self.cookie)
    }
}

/// Whose a request was before a queue sent it on under a completion of its own.
#[derive(Debug)]
pub(crate) struct Parent {
    completion: Completion,
    moved: u64,
}

/// One operation on a range of a device. Owns its buffers until it is completed or given back.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub op: Op,
    /// First logical block.
    pub lba: u64,
    /// Logical blocks.
    pub blocks: u32,
    /// Force unit access: a write is durable when it completes. On a device without it, the block layer flushes.
    pub fua: bool,
    /// When the submitter gives up; `None` for the device's default.
    pub deadline: Option<Instant>,
    /// The buffers.
    pub data: Data,
    completion: Completion,
    /// How far `lba` has been moved by the sub-devices that the request went through; undone before its completion sees it.
    moved: u64,
}

impl Request {
    /// A request. The range is in logical blocks of the device it will be submitted to.
    pub fn new(op: Op, lba: u64, blocks: u32, data: Data, completion: Completion) -> Self {
        Self { op, lba, blocks, fua: false, deadline: None, data, completion, moved: 0 }
    }

    /// A flush.
    pub fn flush(completion: Completion) -> Self {
        Self::new(Op::Flush, 0, 0, Data::None, completion)
    }

    /// Where it will go when it is done.
    pub fn completion(&self) -> &Completion {
        &self.completion
    }

    /// Changes where it will go when it is done.
    pub fn set_completion(&mut self, completion: Completion) {
        self.completion = completion;
    }

    /// Moves the request from a sub-device to the device below it, `blocks` further on. Whoever completes the request sees the block that
    /// it asked for: [`InFlight::finish`] moves it back, and a sub-device whose device refused it does so by [`Request::move_back`].
    ///
    /// # Errors
    /// [`Error::OutOfRange`], with nothing changed, if there is no such block.
    pub fn move_down(&mut self, blocks: u64) -> Result<(), Error> {
        let lba = self.lba.checked_add(blocks).ok_or(Error::OutOfRange)?;
        // `moved` is at most `lba`, so it does not overflow either.
        self.moved = self.moved.saturating_add(blocks);
        self.lba = lba;
        Ok(())
    }

    /// Undoes [`Request::move_down`] by the same number of blocks.
    pub fn move_back(&mut self, blocks: u64) {
        let blocks = blocks.min(self.moved);
        self.moved -= blocks;
        self.lba -= blocks;
    }

    /// Has the request come back to `sink`; `set_cookie` says with which cookie.
    #[inline]
    pub(crate) fn take_over(&mut self, sink: Arc<dyn Complete>) -> Parent {
        let completion = core::mem::replace(&mut self.completion, Completion { sink, cookie: 0 });
        Parent { completion, moved: core::mem::take(&mut self.moved) }
    }

    #[inline]
    pub(crate) fn set_cookie(&mut self, cookie: u64) {
        self.completion.cookie = cookie;
    }

    /// Undoes [`Request::take_over`].
    #[inline]
    pub(crate) fn give_back_to(&mut self, parent: Parent) {
        self.completion = parent.completion;
        self.moved = parent.moved;
    }

    /// A request without buffers, for a parent whose own the device will not give back.
    pub(crate) fn without_data(op: Op, lba: u64, blocks: u32, parent: Parent) -> Self {
        let Parent { completion, moved } = parent;
        Self { moved, ..Self::new(op, lba, blocks, Data::None, completion) }
    }

    /// Checks the request's range against a device's shape, and that the device can do it at all: what a sub-device does in `submit`, whose
    /// parent looks at the rest.
    ///
    /// # Errors
    /// The first limit that the request breaks; always the caller's fault.
    pub fn check_range(&self, info: &Info) -> Result<(), Error> {
        if self.op == Op::Flush {
            return Ok(());
        }
        if self.blocks == 0 || self.lba.checked_add(u64::from(self.blocks)).is_none_or(|end| end > info.capacity) {
            return Err(Error::OutOfRange);
        }
        if self.op != Op::Read && info.features.contains(crate::Features::READ_ONLY) {
            return Err(Error::ReadOnly);
        }
        Ok(())
    }

    /// Checks the request against a device's shape and limits: what every driver does first in `submit`.
    ///
    /// # Errors
    /// The first limit that the request breaks; always the caller's fault.
    pub fn check(&self, info: &Info) -> Result<(), Error> {
        use crate::Features;
        if self.op == Op::Flush {
            return if self.data.is_empty() { Ok(()) } else { Err(Error::BadLength) };
        }
        self.check_range(info)?;
        match self.op {
            Op::Discard => Self::check_blocks(self, info, Features::DISCARD, info.limits.max_discard_blocks),
            Op::WriteZeroes => {
                Self::check_blocks(self, info, Features::WRITE_ZEROES, info.limits.max_write_zeroes_blocks)
            }
            Op::Read | Op::Write => self.check_data(info),
            Op::Flush => Ok(()),
        }
    }

    fn check_blocks(&self, info: &Info, feature: crate::Features, most: u32) -> Result<(), Error> {
        if !info.features.contains(feature) {
            Err(Error::Unsupported)
        } else if !self.data.is_empty() {
            Err(Error::BadLength)
        } else if self.blocks > most {
            Err(Error::TooLarge)
        } else {
            Ok(())
        }
    }

    fn check_data(&self, info: &Info) -> Result<(), Error> {
        let limits = &info.limits;
        let bytes = u64::from(self.blocks) * u64::from(info.block_size);
        if bytes > u64::from(limits.max_transfer_bytes) {
            return Err(Error::TooLarge);
        }
        let (mut total, mut segments) = (0u64, 0usize);
        for segment in self.data.segments() {
            total += u64::from(segment.len);
            segments += 1;
            if segment.len == 0 || !segment.len.is_multiple_of(512) {
                return Err(Error::BadLength);
            }
            if segment.len > limits.max_segment_bytes {
                return Err(Error::TooLarge);
            }
            let last = segment.addr.saturating_add(u64::from(segment.len) - 1);
            if last > limits.dma.max_addr {
                return Err(Error::Unreachable);
            }
            let boundary = limits.dma.boundary;
            if boundary != 0 && segment.addr / boundary != last / boundary && !broken::is(Hazard::BoundaryUnseen) {
                return Err(Error::TooLarge);
            }
        }
        if segments > usize::from(limits.max_segments) {
            return Err(Error::TooLarge);
        }
        if total != bytes { Err(Error::BadLength) } else { Ok(()) }
    }

    /// Hands the request to its completion. No lock may be held.
    #[inline(always)]
    pub(crate) fn hand_over(mut self, cx: &BottomHalf, result: Result<(), Error>) {
        self.move_back(u64::MAX);
        undercroft_hal::sync::assert_unlocked("a completion runs");
        let Completion { sink, cookie } = self.completion.clone();
        sink.complete(cx, cookie, self, result);
    }

    /// The device takes the request: from here on it must be finished exactly once.
    pub fn accept(self) -> InFlight {
        InFlight { request: Some(self) }
    }
}

/// A request that a device has accepted. Linear: finish it, exactly once. Dropping it unfinished loses a completion and is a bug of the
/// driver: it panics in debug and test builds.
#[derive(Debug)]
#[must_use = "an accepted request must be finished"]
pub struct InFlight {
    request: Option<Request>,
}

impl InFlight {
    /// The request.
    ///
    /// # Panics
    /// Never: the request is there until `finish` consumes self.
    pub fn request(&self) -> &Request {
        self.request.as_ref().expect("present until finished")
    }

    /// The request's buffers, for a device that moves data by the CPU (programmed I/O, a RAM disk).
    ///
    /// # Panics
    /// Never: the request is there until `finish` consumes self.
    pub fn data_mut(&mut self) -> &mut Data {
        &mut self.request.as_mut().expect("present until finished").data
    }

    /// Hands the request to its completion. No lock may be held.
    pub fn finish(mut self, cx: &BottomHalf, result: Result<(), Error>) {
        if let Some(request) = self.request.take() {
            request.hand_over(cx, result);
        }
    }

    /// Gives the request back to its submitter, as if it had never been accepted. Only `submit` itself may do that.
    ///
    /// # Panics
    /// Never: the request is there until `finish` consumes self.
    pub fn give_back(mut self) -> Request {
        self.request.take().expect("present until finished")
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // A second panic would end the program before the first is told.
        debug_assert!(self.request.is_none() || is_unwinding(), "a request was lost: {:?}", self.request);
        if let Some(request) = &self.request {
            log::error!("a request was lost: {:?} at block {}", request.op, request.lba);
        }
    }
}
