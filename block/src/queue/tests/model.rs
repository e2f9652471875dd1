//! A device that does what a test says: stalls, refuses, fails, comes back, answers too late. And who submits to it.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::{BottomHalf, Instant, Task};
use undercroft_hosts::{Config as MachineConfig, Machine, Schedule};
use undercroft_timer::timers;

use crate::queue::{BlockQueue, Config};
use crate::scsi::Managed;
use crate::*;

pub const BLOCK: usize = 512;
pub const BLOCKS: u64 = 256;

/// What the device does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Do,
    Fail(Error),
    /// Keeps it until it is told otherwise.
    Stall,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub op: Op,
    pub lba: u64,
    pub blocks: u32,
    pub fua: bool,
}

pub struct State {
    pub info: Info,
    pub store: Vec<u8>,
    /// What a power cut would leave.
    pub durable: Vec<u8>,
    /// What becomes of the next requests; then they are done.
    pub script: VecDeque<Act>,
    pub seen: Vec<Seen>,
    pub stalled: BTreeMap<u64, InFlight>,
    done: VecDeque<(InFlight, Result<(), Error>)>,
    /// Answers wait for `release`.
    pub held: bool,
    next: u64,
    pub depth: usize,
    pub most: usize,
    refused: bool,
    /// It stores nothing: a disk may be larger than memory.
    pub hollow: bool,
    /// It does not say when it has room again.
    pub mute: bool,
    /// What each rung answers, and whether it then ends what is stalled.
    pub rungs: [(Managed, bool); 4],
    pub asked: Vec<(Instant, Recovery)>,
}

thread_local! {
    /// Done once, in the middle of the next refusal.
    pub static ON_REFUSAL: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
}

pub struct Model {
    identity: Identity,
    pub state: Mutex<State>,
    pub watcher: Mutex<Option<Arc<dyn Watcher>>>,
    work: BottomHalfWork,
}

impl Model {
    pub fn new(depth: u32, features: Features) -> Arc<Self> {
        let limits = Limits {
            max_segments: 4,
            max_segment_bytes: 4096,
            max_transfer_bytes: 8 * BLOCK as u32,
            max_discard_blocks: 16,
            max_write_zeroes_blocks: 5,
            dma: DmaConstraints::ANY,
        };
        let info = Info {
            capacity: BLOCKS,
            block_size: BLOCK as u32,
            physical_block_size: BLOCK as u32,
            queues: 1,
            depth,
            features: features | Features::DISCARD | Features::WRITE_ZEROES,
            limits,
        };
        let store: Vec<u8> = (0..BLOCKS as usize * BLOCK).map(|at| (at / 7) as u8).collect();
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            Self {
                identity: Identity {
                    driver: "model",
                    controller: "test".into(),
                    serial: "M".into(),
                    model: String::new(),
                    interrupts: String::new(),
                    transport: String::new(),
                },
                state: Mutex::new(State {
                    info,
                    durable: store.clone(),
                    store,
                    script: VecDeque::new(),
                    seen: Vec::new(),
                    stalled: BTreeMap::new(),
                    done: VecDeque::new(),
                    held: false,
                    next: 1,
                    depth: depth as usize,
                    most: 0,
                    refused: false,
                    hollow: false,
                    mute: false,
                    rungs: [(Managed::Unsupported, false); 4],
                    asked: Vec::new(),
                }),
                watcher: Mutex::default(),
                work: BottomHalfWork::new(0, move |cx| {
                    if let Some(model) = this.upgrade() {
                        model.work(cx);
                    }
                    Turn::Done
                }),
            }
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Ends all that is stalled.
    pub fn end_stalled(&self, result: Result<(), Error>) {
        let mut state = self.lock();
        while let Some((_, flight)) = state.stalled.pop_first() {
            state.answer(flight, result);
        }
        drop(state);
        self.work.schedule();
    }

    pub fn release(&self) {
        self.lock().held = false;
        self.work.schedule();
    }

    pub fn tell(&self, cx: &BottomHalf, event: Event) {
        let watcher = self.watcher.lock().unwrap().clone();
        watcher.unwrap().event(cx, event);
    }

    fn work(&self, cx: &BottomHalf) {
        loop {
            let (flight, result, room) = {
                let mut state = self.lock();
                if state.held {
                    return;
                }
                let Some((flight, result)) = state.done.pop_front() else { return };
                (flight, result, std::mem::take(&mut state.refused))
            };
            flight.finish(cx, result);
            if room {
                self.tell(cx, Event::Room);
            }
        }
    }
}

impl State {
    fn in_flight(&self) -> usize {
        self.stalled.len() + self.done.len()
    }

    fn answer(&mut self, mut flight: InFlight, result: Result<(), Error>) {
        if result.is_ok() {
            self.run(&mut flight);
        }
        self.done.push_back((flight, result));
    }

    fn run(&mut self, flight: &mut InFlight) {
        let Request { op, lba, blocks, fua, .. } = *flight.request();
        if self.hollow {
            return;
        }
        let range = lba as usize * BLOCK..(lba as usize + blocks as usize) * BLOCK;
        let mut at = range.start;
        match op {
            Op::Flush => self.durable.clone_from(&self.store),
            Op::WriteZeroes => self.store[range].fill(0),
            Op::Discard => self.store[range].fill(0xdd),
            Op::Read | Op::Write => {
                for piece in flight.data_mut().pieces_mut() {
                    let here = at..at + piece.len();
                    match op {
                        Op::Read => piece.bytes_mut().copy_from_slice(&self.store[here.clone()]),
                        _ => self.store[here.clone()].copy_from_slice(piece.bytes()),
                    }
                    if fua {
                        self.durable[here.clone()].copy_from_slice(&self.store[here.clone()]);
                    }
                    at = here.end;
                }
                assert_eq!(at, range.end, "the data is the range's");
            }
        }
    }
}

impl BlockDevice for Model {
    fn identity(&self) -> &Identity {
        &self.identity
    }
    fn info(&self) -> Info {
        self.lock().info
    }
    fn submit(&self, request: Request) -> Result<Tag, Rejected> {
        let mut state = self.lock();
        if let Err(error) = request.check(&state.info) {
            return Err(Rejected { request, why: Refusal::Invalid(error) });
        }
        if state.in_flight() >= state.depth {
            state.refused = !state.mute;
            drop(state);
            if let Some(during) = ON_REFUSAL.take() {
                during();
            }
            return Err(Rejected { request, why: Refusal::Full });
        }
        let Request { op, lba, blocks, fua, .. } = request;
        state.seen.push(Seen { op, lba, blocks, fua });
        assert!(state.seen.len() < 100_000, "sent without end");
        let act = state.script.pop_front().unwrap_or(Act::Do);
        let tag = state.next;
        state.next += 1;
        let flight = request.accept();
        match act {
            Act::Do => state.answer(flight, Ok(())),
            Act::Fail(error) => state.answer(flight, Err(error)),
            Act::Stall => _ = state.stalled.insert(tag, flight),
        }
        state.most = state.most.max(state.in_flight());
        Ok(Tag::from_bits(tag))
    }
    fn commit(&self) {
        self.work.schedule();
    }
    fn recover(&self, what: Recovery) -> Managed {
        let mut state = self.lock();
        state.asked.push((Instant::now(), what));
        let (rung, tag) = match what {
            Recovery::Abort(tag) => (0, Some(tag.to_bits())),
            Recovery::ResetUnit => (1, None),
            Recovery::ResetBus(_) => (2, None),
            Recovery::ResetController => (3, None),
        };
        let (answer, works) = state.rungs[rung];
        if works {
            match tag {
                Some(tag) => {
                    if let Some(flight) = state.stalled.remove(&tag) {
                        state.answer(flight, Err(Error::Cancelled));
                    }
                }
                None => {
                    while let Some((_, flight)) = state.stalled.pop_first() {
                        state.answer(flight, Err(Error::Reset));
                    }
                }
            }
        }
        drop(state);
        self.work.schedule();
        answer
    }
    fn watch(&self, watcher: Arc<dyn Watcher>) {
        *self.watcher.lock().unwrap() = Some(watcher);
    }
}

/// A request that ended, how, and when.
type Ended = (Request, Result<(), Error>, Instant);

/// Takes completions, each of which must be the first of its cookie.
#[derive(Default)]
pub struct Sink {
    pub done: Mutex<BTreeMap<u64, Ended>>,
    pub order: Mutex<Vec<u64>>,
    pub events: Mutex<Vec<Event>>,
}

impl Complete for Sink {
    fn complete(&self, _: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        self.order.lock().unwrap().push(cookie);
        let before = self.done.lock().unwrap().insert(cookie, (request, result, Instant::now()));
        assert!(before.is_none(), "request {cookie} completed twice");
    }
}

impl Watcher for Sink {
    fn event(&self, _: &BottomHalf, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

/// Everything a test of the queue needs.
pub struct Rig<'a> {
    pub cx: &'a Task,
    pub machine: &'a Rc<Machine>,
    pub model: Arc<Model>,
    pub queue: BlockQueue,
    pub sink: Arc<Sink>,
}

/// The times of the tests' queues.
pub const TIMES: Config = Config {
    timeout: Duration::from_millis(100),
    rungs: [Duration::from_millis(10), Duration::from_millis(20), Duration::from_millis(30), Duration::from_millis(40)],
    waiting: 16,
    submitters: 3,
};

/// Runs a test; the message if it panics. Checks that all buffers are back.
pub fn try_with(depth: u32, features: Features, config: Config, test: impl FnOnce(&Rig<'_>)) -> Result<(), String> {
    try_on(1, depth, features, config, test)
}

/// The same on several CPUs, for each of which the device has a queue.
pub fn try_on(
    cpus: usize,
    depth: u32,
    features: Features,
    config: Config,
    test: impl FnOnce(&Rig<'_>),
) -> Result<(), String> {
    let machine = Machine::new(MachineConfig { cpus, schedule: Schedule::Eager, ..MachineConfig::default() });
    machine.try_run(|cx| {
        timers::start_service(cx);
        let model = Model::new(depth, features);
        model.lock().info.queues = cpus as u16;
        let queue = BlockQueue::new(model.clone(), config);
        let rig = Rig { cx, machine: &machine, model, queue, sink: Arc::default() };
        test(&rig);
        rig.settle();
        // They know the sink, and the sink has them.
        let done = std::mem::take(&mut *rig.sink.done.lock().unwrap());
        drop(done);
        drop(rig);
        cx.run_pending();
    })?;
    assert_eq!(machine.live_dma_blocks(), 0, "all buffers are back");
    Ok(())
}

pub fn with_rig(depth: u32, test: impl FnOnce(&Rig<'_>)) {
    try_with(depth, Features::VOLATILE_CACHE, TIMES, test).unwrap();
}

pub fn buffer(blocks: usize, fill: u8) -> Data {
    let mut buf = DmaBuf::new(blocks * BLOCK, DmaConstraints::ANY).unwrap();
    buf.fill(fill);
    buf.into()
}

impl Rig<'_> {
    pub fn settle(&self) {
        for _ in 0..20 {
            self.cx.run_pending();
        }
    }

    pub fn pass(&self, time: Duration) {
        self.machine.advance(time.as_nanos() as u64);
        self.settle();
    }

    pub fn request(&self, cookie: u64, op: Op, lba: u64, blocks: u32) -> Request {
        let data = if matches!(op, Op::Read | Op::Write) { buffer(blocks as usize, cookie as u8) } else { Data::None };
        Request::new(op, lba, blocks, data, Completion::new(self.sink.clone(), cookie))
    }

    pub fn send(&self, cookie: u64, op: Op, lba: u64, blocks: u32) {
        self.queue.submit(self.request(cookie, op, lba, blocks)).unwrap();
        self.queue.commit();
    }

    pub fn result(&self, cookie: u64) -> Option<Result<(), Error>> {
        self.sink.done.lock().unwrap().get(&cookie).map(|(_, result, _)| *result)
    }

    /// When it completed.
    pub fn at(&self, cookie: u64) -> Instant {
        self.sink.done.lock().unwrap()[&cookie].2
    }

    pub fn script(&self, acts: &[Act]) {
        self.model.lock().script.extend(acts);
    }
}
