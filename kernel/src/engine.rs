//! A fixed number of requests kept in flight: each completion sends the next from the bottom half, on the CPU where it arrived. For
//! measuring. Every CPU that the device has a queue for has its own share of them.
//!
//! Nothing is allocated once it runs. Started and awaited in task context.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use undercroft_block::{BlockDevice, Complete, Completion, Data, Error, Op, Piece, Refusal, Request};
use undercroft_hal::dma::DmaBuf;
use undercroft_hal::sync::{IrqSpinLock, Rank, SpinLock};
use undercroft_hal::work::{TaskWork, Turn};
use undercroft_hal::{BottomHalf, Instant, Task, cpu};

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

/// What the engines of a load share.
struct Shared {
    /// The next place of a sequential load.
    next_place: AtomicU64,
    /// Makes the task that waits for the end look again.
    finished: TaskWork,
}

/// One CPU's part of a load.
struct State {
    random: Random,
    started: Vec<Instant>,
    latencies: Histogram,
    requests: u64,
    last: Instant,
    end: Instant,
    failure: Option<Error>,
    /// Requests that found no room, waiting for a completion.
    parked: Vec<Request>,
}

struct Engine {
    device: Arc<dyn BlockDevice>,
    load: Load,
    shared: Arc<Shared>,
    /// Requests on the way or parked.
    alive: AtomicUsize,
    /// What is sent first.
    initial: IrqSpinLock<Vec<Request>>,
    state: SpinLock<State>,
}

impl Engine {
    /// Where the next request goes.
    #[inline]
    fn place(&self, state: &mut State) -> u64 {
        let place = if self.load.sequential {
            self.shared.next_place.fetch_add(1, Ordering::Relaxed) % self.load.places
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
        self.gone(1);
    }

    /// Ends the life of so many requests.
    #[inline]
    fn gone(&self, count: usize) {
        if self.alive.fetch_sub(count, Ordering::AcqRel) == count {
            self.shared.finished.schedule();
        }
    }

    fn set_end(&self, cx: &Task, start: Instant) {
        self.state.lock(cx).end = start + core::time::Duration::from_nanos(self.load.nanos);
    }

    /// Sends the first requests, on the CPU that this engine is for.
    fn begin(&self, cx: &Task) {
        let initial = core::mem::take(&mut *self.initial.lock());
        for (slot, mut request) in initial.into_iter().enumerate() {
            let mut state = self.state.lock(cx);
            request.lba = self.place(&mut state);
            state.started[slot] = Instant::now();
            drop(state);
            self.send(cx, request);
        }
        self.device.commit();
    }

    #[inline]
    fn is_over(&self, state: &State, now: Instant) -> bool {
        now >= state.end || state.failure.is_some()
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
            self.gone(gone);
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

/// Runs a load to its end: from as many CPUs as the device has queues for, each keeping its share of the depth in flight by itself.
///
/// # Errors
/// The first failure; [`Error::NoMemory`] when not even one buffer can be had.
pub(crate) fn run(cx: &Task, device: &Arc<dyn BlockDevice>, load: Load) -> Result<Outcome, Error> {
    let info = device.info();
    let depth = load.depth.min(info.depth as usize).max(1);
    let width = cpu::count().min(depth).min(usize::from(info.queues)).max(1);
    let shared =
        Arc::new(Shared { next_place: AtomicU64::new(0), finished: TaskWork::new(cpu::current(), |_| Turn::Done) });
    let engines: Vec<_> = (0..width)
        .map(|at| Engine::new(device, load, share(depth, width, at), at, Arc::clone(&shared)))
        .collect::<Result<_, _>>()?;
    // Made before the stretch: it starts its engine on the CPU that is its home.
    let starts: Vec<_> = (engines.iter().enumerate())
        .map(|(cpu, engine)| {
            let engine = Arc::clone(engine);
            TaskWork::new(cpu, move |cx: &Task| {
                engine.begin(cx);
                Turn::Done
            })
        })
        .collect();
    let stretch = Stretch::begin();
    let start = Instant::now();
    engines.iter().for_each(|engine| engine.set_end(cx, start));
    starts.iter().for_each(TaskWork::schedule);
    cx.wait_until(|| engines.iter().all(|engine| engine.alive.load(Ordering::Acquire) == 0));
    drop(stretch);
    starts.into_iter().for_each(|start| start.remove(cx));
    merge(cx, &engines, start)
}

/// The part of `depth` that falls to number `at` of `width`.
fn share(depth: usize, width: usize, at: usize) -> usize {
    depth / width + usize::from(at < depth % width)
}

fn merge(cx: &Task, engines: &[Arc<Engine>], start: Instant) -> Result<Outcome, Error> {
    let mut latencies = Box::new(Histogram::new());
    let (mut requests, mut last) = (0, start);
    for engine in engines {
        let state = engine.state.lock(cx);
        if let Some(error) = state.failure {
            return Err(error);
        }
        latencies.merge(&state.latencies);
        requests += state.requests;
        last = last.max(state.last);
    }
    let (p50, p99) = (latencies.percentile(50), latencies.percentile(99));
    Ok(Outcome { requests, nanos: last.since(start).as_nanos() as u64, p50, p99 })
}

impl Engine {
    /// An engine for number `at` of a load's CPUs, with `depth` requests ready to be sent.
    fn new(
        device: &Arc<dyn BlockDevice>,
        load: Load,
        depth: usize,
        at: usize,
        shared: Arc<Shared>,
    ) -> Result<Arc<Self>, Error> {
        let info = device.info();
        let bytes = load.blocks as usize * info.block_size as usize;
        let buffers: Vec<_> = (0..depth).map_while(|_| DmaBuf::new(bytes, info.limits.dma).ok()).collect();
        if buffers.len() < depth {
            return Err(Error::NoMemory);
        }
        let now = Instant::now();
        let state = State {
            // Each its own sequence.
            random: Random::new(load.seed.wrapping_add(at as u64)),
            started: alloc::vec![now; depth],
            latencies: Histogram::new(),
            requests: 0,
            last: now,
            end: now,
            failure: None,
            parked: Vec::with_capacity(depth),
        };
        let engine = Arc::new(Self {
            device: Arc::clone(device),
            load,
            shared,
            alive: AtomicUsize::new(depth),
            initial: IrqSpinLock::new(Rank::BLOCK, Vec::new()),
            state: SpinLock::new(Rank::BLOCK, state),
        });
        let requests = buffers.into_iter().enumerate().map(|(slot, buffer)| {
            let sink = Arc::clone(&engine);
            let data = Data::One(Piece::from(buffer));
            Request::new(load.op, 0, load.blocks, data, Completion::new(sink, slot as u64))
        });
        let requests: Vec<_> = requests.collect();
        *engine.initial.lock() = requests;
        Ok(engine)
    }
}
