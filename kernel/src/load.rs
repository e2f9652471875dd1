//! Reads and writes that go on in the background while other things happen to a disk: taken away, resized, its neighbours plugged in. Each
//! completion sends the next from its bottom half.
//!
//! What a place of the range holds is a function of the place (`docs/console-protocol.md`, the pattern), so every read can be checked, whatever
//! was written around it. Nothing is lost in silence: what was sent and did not come back is what [`Counts::in_flight`] says.
//!
//! Made, stopped and looked at in task context.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;

use undercroft_block::queue::BlockQueue;
use undercroft_block::{BlockDevice, Complete, Completion, Data, Error, Op, Piece, Refusal, Request};
use undercroft_hal::context::NotHardIrq;
use undercroft_hal::dma::DmaBuf;
use undercroft_hal::sync::{Rank, SpinLock};
use undercroft_hal::work::{TaskWork, Turn};
use undercroft_hal::{BottomHalf, Instant, Task, cpu};

use crate::pattern::{self, Random};

/// Requests in flight.
const DEPTH: usize = 8;
/// Bytes of each, as far as blocks are not larger.
const BYTES: u32 = 4096;
/// Places tried for a request that is refused, before it waits for another's end.
const TRIES: usize = 4;
/// How long the last of it may take: longer than the block layer lets anything take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a load goes: blocks from `first`, and whether it writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) first: u64,
    pub(crate) blocks: u64,
    pub(crate) seed: u64,
    pub(crate) writes: bool,
}

/// What became of a load's requests.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    sent: u64,
    done: u64,
    reads: u64,
    /// Reads that brought something else than the pattern.
    wrong: u64,
    errors: [u64; Error::ALL.len()],
    /// Requests that were refused, with the error that the device gave for it.
    refused: u64,
    longest: Duration,
    /// Requests that the device has, and since when the oldest of them.
    in_flight: u64,
    oldest: Duration,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, done, reads, wrong, refused, longest, in_flight, oldest, .. } = *self;
        let bad: u64 = self.errors.iter().sum();
        write!(
            f,
            "{sent} sent, {done} done, {in_flight} in flight, {reads} reads checked, {wrong} wrong, {bad} failed"
        )?;
        write!(f, ", {refused} refused, longest {} ms", longest.as_millis())?;
        if in_flight > 0 {
            write!(f, ", oldest {} ms", oldest.as_millis())?;
        }
        for (error, count) in Error::ALL.iter().zip(self.errors).filter(|(_, count)| *count > 0) {
            write!(f, "; {count} times {error:?}")?;
        }
        Ok(())
    }
}

struct State {
    random: Random,
    started: [Option<Instant>; DEPTH],
    counts: Counts,
    /// Requests that found no room.
    parked: Vec<(usize, Request)>,
}

/// See the module.
pub(crate) struct Load {
    device: Arc<BlockQueue>,
    place: Place,
    /// Blocks of a request.
    blocks: u32,
    state: SpinLock<State>,
    /// Requests that have not ended their life.
    alive: AtomicUsize,
    stopping: AtomicBool,
    /// Makes the task that waits for the end look again.
    finished: TaskWork,
}

impl Load {
    /// Begins a load.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if not one request fits, [`Error::NoMemory`].
    pub(crate) fn begin(cx: &Task, device: &Arc<BlockQueue>, place: Place) -> Result<Arc<Self>, Error> {
        let info = device.info();
        let blocks = (BYTES / info.block_size).max(1);
        if place.blocks < u64::from(blocks) {
            return Err(Error::OutOfRange);
        }
        let bytes = blocks as usize * info.block_size as usize;
        let buffers: Vec<_> = (0..DEPTH).map_while(|_| DmaBuf::new(bytes, info.limits.dma).ok()).collect();
        if buffers.is_empty() {
            return Err(Error::NoMemory);
        }
        let state = State {
            random: Random::new(place.seed),
            started: [None; DEPTH],
            counts: Counts::default(),
            parked: Vec::with_capacity(DEPTH),
        };
        let load = Arc::new(Self {
            device: Arc::clone(device),
            place,
            blocks,
            state: SpinLock::new(Rank::BLOCK, state),
            alive: AtomicUsize::new(buffers.len()),
            stopping: AtomicBool::new(false),
            finished: TaskWork::new(cpu::current(), |_| Turn::Done),
        });
        for (slot, buffer) in buffers.into_iter().enumerate() {
            let sink = Arc::clone(&load);
            let data = Data::One(Piece::from(buffer));
            load.send(cx, slot, Request::new(Op::Read, 0, blocks, data, Completion::new(sink, slot as u64)));
        }
        load.device.commit();
        Ok(load)
    }

    /// What became of its requests so far.
    pub(crate) fn counts(&self, cx: &Task) -> Counts {
        let state = self.state.lock(cx);
        let out = state.started.iter().flatten();
        let oldest = out.clone().map(|at| at.elapsed()).max().unwrap_or_default();
        Counts { in_flight: out.count() as u64, oldest, ..state.counts }
    }

    /// Whether none of its requests is alive: it was stopped, or its device went.
    pub(crate) fn is_over(&self) -> bool {
        self.alive.load(Ordering::Acquire) == 0
    }

    /// Sends no more, and waits for what is out. `false`: something did not come back in time.
    pub(crate) fn stop(&self, cx: &Task) -> bool {
        self.stopping.store(true, Ordering::Release);
        self.wait(cx)
    }

    /// Waits for its end, which its device's brings about. `false`: something did not come back in time.
    pub(crate) fn wait(&self, cx: &Task) -> bool {
        self.resume(cx);
        let start = Instant::now();
        while !self.is_over() && start.elapsed() < PATIENCE {
            cx.run_pending();
            cpu::relax();
        }
        self.is_over()
    }

    /// Sends what was refused for want of room.
    pub(crate) fn resume(&self, cx: &impl NotHardIrq) {
        loop {
            let parked = self.state.lock(cx).parked.pop();
            let Some((slot, request)) = parked else { break };
            if !self.send(cx, slot, request) {
                break;
            }
        }
        self.device.commit();
    }

    /// A place on the disk as it is now; `None` if there is none.
    fn next(&self, state: &mut State) -> Option<u64> {
        let places = self.place.blocks / u64::from(self.blocks);
        (places > 0).then(|| self.place.first + state.random.below(places) * u64::from(self.blocks))
    }

    /// Makes a request the next one and sends it, or parks it, or ends its life. `false` if there was no room.
    fn send(&self, cx: &impl NotHardIrq, slot: usize, mut request: Request) -> bool {
        for _ in 0..TRIES {
            if self.stopping.load(Ordering::Acquire) {
                break;
            }
            let block = u64::from(self.device.info().block_size);
            {
                let mut state = self.state.lock(cx);
                let Some(lba) = self.next(&mut state) else { break };
                let writes = self.place.writes && state.random.below(2) == 0;
                (request.lba, request.op) = (lba, if writes { Op::Write } else { Op::Read });
                state.started[slot] = Some(Instant::now());
                state.counts.sent += 1;
            }
            let (op, start) = (request.op, request.lba * block);
            for piece in request.data.pieces_mut() {
                match op {
                    Op::Write => pattern::fill(piece.bytes_mut(), self.place.seed, start),
                    _ => piece.bytes_mut().fill(0xee),
                }
            }
            let Err(rejected) = self.device.submit(request) else { return true };
            request = rejected.request;
            let mut state = self.state.lock(cx);
            state.started[slot] = None;
            state.counts.sent -= 1;
            match rejected.why {
                Refusal::Full => {
                    state.parked.push((slot, request));
                    return false;
                }
                Refusal::Invalid(error) => {
                    state.counts.refused += 1;
                    state.counts.errors[error as usize] += 1;
                }
                Refusal::Gone(error) => {
                    state.counts.refused += 1;
                    state.counts.errors[error as usize] += 1;
                    drop(state);
                    self.stopping.store(true, Ordering::Release);
                    break;
                }
            }
        }
        if self.stopping.load(Ordering::Acquire) {
            drop(request);
            self.gone();
            return true;
        }
        // Nowhere to go now: with the next that comes back.
        self.state.lock(cx).parked.push((slot, request));
        false
    }

    /// Ends the life of a request.
    fn gone(&self) {
        if self.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finished.schedule();
        }
    }
}

impl Complete for Load {
    fn complete(&self, cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        let slot = cookie as usize;
        let block = u64::from(self.device.info().block_size);
        let read = request.op == Op::Read && result.is_ok();
        let start = request.lba * block;
        let right = request.data.pieces().iter().all(|piece| pattern::matches(piece.bytes(), self.place.seed, start));
        {
            let mut state = self.state.lock(cx);
            let taken = state.started[slot].take().map_or(Duration::ZERO, |at| at.elapsed());
            let counts = &mut state.counts;
            counts.done += 1;
            counts.longest = counts.longest.max(taken);
            counts.reads += u64::from(read);
            counts.wrong += u64::from(read && !right);
            if let Err(error) = result {
                counts.errors[error as usize] += 1;
            }
        }
        // Given up with its buffer, or with its device: there is nothing to send any more.
        let over = request.data.is_empty() || matches!(result, Err(Error::Removed | Error::Broken));
        if over {
            self.stopping.store(true, Ordering::Release);
        }
        self.send(cx, slot, request);
        self.resume(cx);
    }
}
