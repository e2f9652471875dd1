//! A fixed number of requests kept in flight: each completion sends the next from the bottom half. For measuring.
//!
//! Nothing is allocated once it runs. Started and awaited in task context.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use undercroft_block::{BlockDevice, Complete, Completion, Data, Error, Op, Piece, Refusal, Request};
use undercroft_hal::dma::DmaBuf;
use undercroft_hal::sync::{Rank, SpinLock};
use undercroft_hal::{BottomHalf, Instant, Task};

use crate::account::Stretch;
use crate::histogram::Histogram;
use crate::pattern::Random;

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) op: Op,
    pub(crate) sequential: bool,
    /// Blocks of one request.
    pub(crate) blocks: u32,
    pub(crate) depth: usize,
    /// First block, and how many requests fit from there.
    pub(crate) first: u64,
    pub(crate) places: u64,
    pub(crate) nanos: u64,
    pub(crate) seed: u64,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) nanos: u64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

struct State {
    random: Random,
    next_place: u64,
    started: Vec<Instant>,
    latencies: Histogram,
    requests: u64,
    last: Instant,
    failure: Option<Error>,
    /// Requests that found no room, waiting for a completion.
    parked: Vec<Request>,
}

struct Engine {
    device: Arc<dyn BlockDevice>,
    load: Load,
    start: Instant,
    end: Instant,
    /// Requests on the way or parked.
    alive: AtomicUsize,
    state: SpinLock<State>,
}

impl Engine {
    /// Where the next request goes.
    #[inline]
    fn place(&self, state: &mut State) -> u64 {
        let place = if self.load.sequential {
            let next = state.next_place;
            state.next_place = if next + 1 == self.load.places { 0 } else { next + 1 };
            next
        } else {
            state.random.below(self.load.places)
        };
        self.load.first + place * u64::from(self.load.blocks)
    }

    /// Sends, or parks what the device has no room for. Ends the request's life if neither is possible.
    #[inline]
    fn send(&self, cx: &impl undercroft_hal::context::NotHardIrq, request: Request) {
        let Err(rejected) = self.device.submit(request) else { return };
        let mut state = self.state.lock(cx);
        let full = rejected.why == Refusal::Full;
        let over = self.is_over(&state, Instant::now());
        // A parked request needs a completion of another to come back, and one that is not the end.
        if full && !over && self.alive.load(Ordering::Relaxed) > state.parked.len() + 1 {
            state.parked.push(rejected.request);
            return;
        }
        if !(full && over) {
            state.failure = state.failure.or(Some(rejected.error().unwrap_or(Error::Busy)));
        }
        drop(state);
        self.alive.fetch_sub(1, Ordering::Release);
    }

    #[inline]
    fn is_over(&self, state: &State, now: Instant) -> bool {
        now >= self.end || state.failure.is_some()
    }
}

impl Complete for Engine {
    fn complete(&self, cx: &BottomHalf, cookie: u64, mut request: Request, result: Result<(), Error>) {
        let now = Instant::now();
        let mut state = self.state.lock(cx);
        let slot = cookie as usize;
        state.requests += 1;
        state.last = now;
        let latency = now.since(state.started[slot]);
        state.latencies.add(latency.as_nanos() as u64);
        if let Err(error) = result {
            state.failure = state.failure.or(Some(error));
        }
        if self.is_over(&state, now) {
            // The buffers go with the requests, in this bottom half; with them all that are parked, which nobody would wake again.
            let parked = core::mem::take(&mut state.parked);
            drop(state);
            let gone = 1 + parked.len();
            drop((request, parked));
            self.alive.fetch_sub(gone, Ordering::Release);
            return;
        }
        let parked = state.parked.pop();
        request.lba = self.place(&mut state);
        state.started[slot] = now;
        drop(state);
        self.send(cx, request);
        if let Some(parked) = parked {
            self.send(cx, parked);
        }
        self.device.commit();
    }
}

/// Runs a load to its end.
///
/// # Errors
/// The first failure; [`Error::NoMemory`] when not even one buffer can be had.
pub(crate) fn run(cx: &Task, device: &Arc<dyn BlockDevice>, load: Load) -> Result<Outcome, Error> {
    let info = device.info();
    let depth = load.depth.min(info.depth as usize).max(1);
    let bytes = load.blocks as usize * info.block_size as usize;
    let buffers: Vec<_> = (0..depth).map_while(|_| DmaBuf::new(bytes, info.limits.dma).ok()).collect();
    if buffers.len() < depth {
        return Err(Error::NoMemory);
    }
    let start = Instant::now();
    let state = State {
        random: Random::new(load.seed),
        next_place: 0,
        started: alloc::vec![start; depth],
        latencies: Histogram::new(),
        requests: 0,
        last: start,
        failure: None,
        parked: Vec::with_capacity(depth),
    };
    let engine = Arc::new(Engine {
        device: Arc::clone(device),
        load,
        start,
        end: start + core::time::Duration::from_nanos(load.nanos),
        alive: AtomicUsize::new(depth),
        state: SpinLock::new(Rank::BLOCK, state),
    });
    let stretch = Stretch::begin();
    for (slot, buffer) in buffers.into_iter().enumerate() {
        let lba = engine.place(&mut engine.state.lock(cx));
        let sink = Arc::clone(&engine);
        let data = Data::One(Piece::from(buffer));
        engine.send(cx, Request::new(load.op, lba, load.blocks, data, Completion::new(sink, slot as u64)));
    }
    engine.device.commit();
    cx.wait_until(|| engine.alive.load(Ordering::Acquire) == 0);
    drop(stretch);
    let state = engine.state.lock(cx);
    match state.failure {
        Some(error) => Err(error),
        None => Ok(Outcome {
            requests: state.requests,
            nanos: state.last.since(engine.start).as_nanos() as u64,
            p50: state.latencies.percentile(50),
            p99: state.latencies.percentile(99),
        }),
    }
}
