//! Requests and their completions.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Deref, DerefMut};

use undercroft_hal::{BottomHalf, Instant, is_unwinding};

use crate::broken::{self, Hazard};
use crate::scsi::Frame;
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
    completion: Option<Completion>,
    moved: u64,
}

/// What a request says. Reached through the [`Request`], whose fields these are.
#[derive(Debug)]
pub struct Body {
    /// What to do.
    pub op: Op,
    /// Force unit access: a write is durable when it completes. On a device without it, the block layer flushes.
    pub fua: bool,
    /// Logical blocks.
    pub blocks: u32,
    /// First logical block.
    pub lba: u64,
    /// When the submitter gives up; `None` for the device's default.
    pub deadline: Option<Instant>,
    /// The buffers.
    pub data: Data,
    /// `None` only in a [`Blank`].
    completion: Option<Completion>,
    /// How far `lba` has been moved by the sub-devices that the request went through; undone before its completion sees it.
    moved: u64,
    /// The SCSI command that serves it, if one does.
    frame: Frame,
}

/// Room for a request: what there is before one, and what is left of it. For those who send many and may not allocate as they do.
#[derive(Debug)]
pub struct Blank(Place);

/// Where a request lies. A list of one, which unlike a box of its own can be had with an error where there is no memory.
type Place = Box<[Body; 1]>;

impl Body {
    const EMPTY: Self = Self {
        op: Op::Flush,
        fua: false,
        blocks: 0,
        lba: 0,
        deadline: None,
        data: Data::None,
        completion: None,
        moved: 0,
        frame: Frame::EMPTY,
    };
}

impl Blank {
    /// Allocates. Task or bottom-half context, no lock held.
    pub fn new() -> Self {
        Self(Box::new([Body::EMPTY]))
    }

    /// As [`Blank::new`].
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn try_new() -> Result<Self, Error> {
        let mut list = Vec::new();
        list.try_reserve_exact(1).map_err(|_| Error::NoMemory)?;
        list.push(Body::EMPTY);
        list.into_boxed_slice().try_into().map(Self).map_err(|_| Error::NoMemory)
    }

    /// Makes a request of it. The range is in logical blocks of the device it will be submitted to. Allocates nothing; any context.
    #[inline]
    pub fn fill(mut self, op: Op, lba: u64, blocks: u32, data: Data, completion: Completion) -> Request {
        let [body] = &mut *self.0;
        (body.op, body.fua, body.blocks, body.lba, body.deadline) = (op, false, blocks, lba, None);
        (body.data, body.completion, body.moved) = (data, Some(completion), 0);
        Request { place: self.0 }
    }
}

impl Default for Blank {
    fn default() -> Self {
        Self::new()
    }
}

/// One operation on a range of a device. Owns its buffers until it is completed or given back.
///
/// A request is one allocation, made once: it moves as a pointer, and may be changed and sent again when it is back. See [`Body`] for what it
/// says, and [`Blank`] for those who make them of what is there.
#[derive(Debug)]
pub struct Request {
    place: Place,
}

impl Deref for Request {
    type Target = Body;

    #[inline]
    fn deref(&self) -> &Body {
        &self.place[0]
    }
}

impl DerefMut for Request {
    #[inline]
    fn deref_mut(&mut self) -> &mut Body {
        &mut self.place[0]
    }
}

impl Request {
    /// A request. The range is in logical blocks of the device it will be submitted to. Allocates: task or bottom-half context, no lock held.
    pub fn new(op: Op, lba: u64, blocks: u32, data: Data, completion: Completion) -> Self {
        Blank::new().fill(op, lba, blocks, data, completion)
    }

    /// What is left when it is over: its buffers, and room for another.
    #[inline]
    pub fn retire(mut self) -> (Data, Blank) {
        let data = core::mem::take(&mut self.data);
        // Whoever is told of it may be kept by the room otherwise.
        self.completion = None;
        (data, Blank(self.place))
    }

    /// Its buffers, when it is over.
    #[inline]
    pub fn into_data(mut self) -> Data {
        core::mem::take(&mut self.data)
    }

    /// A flush.
    pub fn flush(completion: Completion) -> Self {
        Self::new(Op::Flush, 0, 0, Data::None, completion)
    }

    /// Where it will go when it is done. Always there: a request has one.
    pub fn completion(&self) -> Option<&Completion> {
        self.completion.as_ref()
    }

    /// Changes where it will go when it is done.
    #[inline]
    pub fn set_completion(&mut self, completion: Completion) {
        self.completion = Some(completion);
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

    /// Has the request come back to `sink`, with `cookie`.
    #[inline]
    pub(crate) fn take_over(&mut self, sink: Arc<dyn Complete>, cookie: u64) -> Parent {
        let completion = self.completion.replace(Completion { sink, cookie });
        Parent { completion, moved: core::mem::take(&mut self.moved) }
    }

    /// Changes with which cookie.
    pub(crate) fn set_cookie(&mut self, cookie: u64) {
        if let Some(completion) = &mut self.completion {
            completion.cookie = cookie;
        }
    }

    /// Undoes [`Request::take_over`].
    #[inline]
    pub(crate) fn give_back_to(&mut self, parent: Parent) {
        self.completion = parent.completion;
        self.moved = parent.moved;
    }

    /// A request without buffers, for a parent whose own the device will not give back.
    pub(crate) fn without_data(Blank(mut place): Blank, (op, lba, blocks): (Op, u64, u32), parent: Parent) -> Self {
        let [body] = &mut *place;
        (body.op, body.lba, body.blocks) = (op, lba, blocks);
        (body.completion, body.moved) = (parent.completion, parent.moved);
        Self { place }
    }

    /// Checks the request's range against a device's shape, and that the device can do it at all: what a sub-device does in `submit`, whose
    /// parent looks at the rest.
    ///
    /// # Errors
    /// The first limit that the request breaks; always the caller's fault.
    pub fn check_range(&self, info: &Info) -> Result<(), Error> {
        if self.op == Op::Flush { Ok(()) } else { self.check_place(info.features, info.capacity) }
    }

    #[inline]
    fn check_place(&self, features: crate::Features, capacity: u64) -> Result<(), Error> {
        if self.blocks == 0 || self.lba.checked_add(u64::from(self.blocks)).is_none_or(|end| end > capacity) {
            return Err(Error::OutOfRange);
        }
        if self.op != Op::Read && features.contains(crate::Features::READ_ONLY) {
            return Err(Error::ReadOnly);
        }
        Ok(())
    }

    /// Checks the request against a device's shape and limits: what every driver does first in `submit`.
    ///
    /// # Errors
    /// The first limit that the request breaks; always the caller's fault.
    #[inline]
    pub fn check(&self, info: &Info) -> Result<(), Error> {
        self.check_within(info, info.capacity)
    }

    /// As [`Request::check`], with a capacity of its own: for drivers whose device changes nothing else, and that need no copy so.
    ///
    /// # Errors
    /// As [`Request::check`].
    #[inline]
    pub fn check_within(&self, info: &Info, capacity: u64) -> Result<(), Error> {
        if self.is_plain(info, capacity) { Ok(()) } else { self.check_closely(info, capacity) }
    }

    /// Whether this is a read or a write with one buffer that breaks no limit: nearly all are.
    #[inline]
    fn is_plain(&self, info: &Info, capacity: u64) -> bool {
        let body: &Body = self;
        let (Op::Read | Op::Write, Data::One(piece)) = (body.op, &body.data) else { return false };
        let (limits, segment, blocks) = (&info.limits, piece.segment(), u64::from(body.blocks));
        let last = segment.addr.saturating_add(u64::from(segment.len).wrapping_sub(1));
        let places = blocks > 0 && body.lba < capacity && blocks <= capacity - body.lba;
        let writes = body.op == Op::Write && info.features.contains(crate::Features::READ_ONLY);
        let fits = segment.len <= limits.max_segment_bytes.min(limits.max_transfer_bytes) && limits.max_segments > 0;
        let whole = u64::from(segment.len) == blocks * u64::from(info.block_size) && segment.len.is_multiple_of(512);
        places && !writes && fits && whole && last <= limits.dma.max_addr && limits.dma.boundary == 0
    }

    fn check_closely(&self, info: &Info, capacity: u64) -> Result<(), Error> {
        use crate::Features;
        if self.op == Op::Flush {
            return if self.data.is_empty() { Ok(()) } else { Err(Error::BadLength) };
        }
        self.check_place(info.features, capacity)?;
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
        let (mut total, mut segments, mut end) = (0u64, 0usize, None);
        for segment in self.data.segments() {
            if end.is_some_and(|end| !limits.may_meet(end, segment.addr)) && !broken::is(Hazard::JointUnseen) {
                return Err(Error::TooLarge);
            }
            end = segment.addr.checked_add(u64::from(segment.len));
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
        // The request keeps its own, for those who send it again.
        if let Some(Completion { sink, cookie }) = self.completion.clone() {
            sink.complete(cx, cookie, self, result);
        } else {
            debug_assert!(false, "a request without a completion");
        }
    }

    /// The device takes the request: from here on it must be finished exactly once.
    #[inline]
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
    #[inline]
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

    #[inline]
    pub(crate) fn frame(&self) -> &Frame {
        &self.request().frame
    }

    #[inline]
    pub(crate) fn frame_mut(&mut self) -> &mut Frame {
        &mut self.request.as_mut().expect("present until finished").frame
    }

    /// Hands the request to its completion. No lock may be held.
    #[inline]
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
    #[inline]
    fn drop(&mut self) {
        if let Some(request) = &self.request {
            lost(request);
        }
    }
}

#[cold]
fn lost(request: &Request) {
    // A second panic would end the program before the first is told.
    debug_assert!(is_unwinding(), "a request was lost: {request:?}");
    log::error!("a request was lost: {:?} at block {}", request.op, request.lba);
}
