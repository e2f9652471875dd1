//! Requests whose results a task wants one by one: a fixed number of lanes, each with one request and its buffer. Task context.
//!
//! The lanes are made once and used for a whole phase: sending and waiting allocate nothing.

use alloc::sync::Arc;
use alloc::vec::Vec;

use undercroft_block::{Blank, BlockDevice, Complete, Completion, Data, Error, Op, Piece, Refusal, Request};
use undercroft_hal::dma::DmaBuf;
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::{BottomHalf, Task};

/// A request that is done, and how it went.
type Done = (Request, Result<(), Error>);

/// Where finished requests arrive.
struct Arrivals {
    lanes: Vec<IrqSpinLock<Option<Done>>>,
}

impl Complete for Arrivals {
    fn complete(&self, _cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        if let Some(lane) = self.lanes.get(cookie as usize) {
            *lane.lock() = Some((request, result));
        }
    }
}

/// See the module.
pub(crate) struct Lanes {
    device: Arc<dyn BlockDevice>,
    arrivals: Arc<Arrivals>,
    buffers: Vec<Option<DmaBuf>>,
    blanks: Vec<Option<Blank>>,
    bytes: usize,
}

impl Lanes {
    /// `count` lanes with buffers of `bytes` each: fewer lanes where memory or the device's depth does not allow as many.
    ///
    /// # Errors
    /// [`Error::NoMemory`] when there is not room for one.
    pub(crate) fn new(device: &Arc<dyn BlockDevice>, count: usize, bytes: usize) -> Result<Self, Error> {
        let info = device.info();
        let count = count.min(info.depth as usize).max(1);
        let buffers: Vec<_> = (0..count).map_while(|_| DmaBuf::new(bytes, info.limits.dma).ok()).map(Some).collect();
        if buffers.is_empty() {
            return Err(Error::NoMemory);
        }
        let blanks = buffers.iter().map(|_| Some(Blank::new())).collect();
        let lanes = buffers.iter().map(|_| IrqSpinLock::new(Rank::BLOCK, None)).collect();
        Ok(Self { device: Arc::clone(device), arrivals: Arc::new(Arrivals { lanes }), buffers, blanks, bytes })
    }

    pub(crate) fn count(&self) -> usize {
        self.buffers.len()
    }

    /// The buffer of an idle lane.
    pub(crate) fn buffer(&mut self, lane: usize) -> Option<&mut [u8]> {
        self.buffers.get_mut(lane)?.as_deref_mut()
    }

    /// Sends an idle lane's request: `blocks` blocks from `lba` with the lane's buffer, as far as the operation has data.
    ///
    /// # Errors
    /// What the device refuses it for.
    pub(crate) fn send(&mut self, cx: &Task, lane: usize, op: Op, lba: u64, blocks: u32) -> Result<(), Error> {
        let bytes = blocks as usize * self.device.info().block_size as usize;
        let data = match op {
            Op::Read | Op::Write => match self.buffers.get_mut(lane).and_then(Option::take) {
                Some(buffer) => Data::One(Piece::new(buffer, 0, bytes.min(self.bytes))),
                None => return Err(Error::Busy),
            },
            Op::Flush | Op::Discard | Op::WriteZeroes => Data::None,
        };
        let sink = Arc::clone(&self.arrivals);
        // The lane is idle: its blank is here.
        let blank = self.blanks.get_mut(lane).and_then(Option::take).unwrap_or_default();
        let mut request = blank.fill(op, lba, blocks, data, Completion::new(sink, lane as u64));
        loop {
            match self.device.submit(request) {
                Ok(_) => {
                    self.device.commit();
                    return Ok(());
                }
                Err(rejected) if rejected.why == Refusal::Full => {
                    request = rejected.request;
                    cx.run_pending();
                    undercroft_hal::cpu::relax();
                }
                Err(rejected) => {
                    let error = rejected.error().unwrap_or(Error::Busy);
                    self.keep(lane, rejected.request);
                    return Err(error);
                }
            }
        }
    }

    fn keep(&mut self, lane: usize, request: Request) {
        let (data, blank) = request.retire();
        self.blanks[lane] = Some(blank);
        if let Ok(buffer) = data.into_buf() {
            self.buffers[lane] = Some(buffer);
        }
    }

    /// Waits for a lane's request.
    ///
    /// # Errors
    /// The request's.
    pub(crate) fn wait(&mut self, cx: &Task, lane: usize) -> Result<(), Error> {
        let mut done = None;
        cx.wait_until(|| {
            done = self.arrivals.lanes[lane].lock().take();
            done.is_some()
        });
        match done {
            Some((request, result)) => {
                self.keep(lane, request);
                result
            }
            None => Err(Error::Cancelled),
        }
    }

    /// Sends one request without data and waits for it.
    ///
    /// # Errors
    /// The request's.
    pub(crate) fn flush(&mut self, cx: &Task) -> Result<(), Error> {
        self.send(cx, 0, Op::Flush, 0, 0)?;
        self.wait(cx, 0)
    }
}
