//! A device that does what a test says: stalls, refuses, fails, comes back, answers too late.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use undercroft_hal::dma::{DmaConstraints, Segment};
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::{BottomHalf, Instant};

pub use super::rig::*;
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
    /// Does not take it. What it refuses as full, it soon has room for.
    Refuse(Refusal),
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
    /// The segments of each.
    pub segments: Vec<Vec<Segment>>,
    pub stalled: BTreeMap<u64, InFlight>,
    done: VecDeque<(InFlight, Result<(), Error>)>,
    /// Answers wait for `release`.
    pub held: bool,
    next: u64,
    pub depth: usize,
    pub most: usize,
    refused: bool,
    /// Refusals of the script.
    pub refusals: u32,
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
            joint: 0,
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
                    segments: Vec::new(),
                    stalled: BTreeMap::new(),
                    done: VecDeque::new(),
                    held: false,
                    next: 1,
                    depth: depth as usize,
                    most: 0,
                    refused: false,
                    refusals: 0,
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
            let (next, room) = {
                let mut state = self.lock();
                if state.held {
                    return;
                }
                let next = state.done.pop_front();
                // Also without an answer: what the script refused, it did not for want of room.
                let room = next.is_some() || state.in_flight() < state.depth;
                (next, room && std::mem::take(&mut state.refused))
            };
            let last = next.is_none();
            if let Some((flight, result)) = next {
                flight.finish(cx, result);
            }
            if room {
                self.tell(cx, Event::Room);
            }
            if last {
                return;
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
        let Body { op, lba, blocks, fua, .. } = **flight.request();
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
        if let Some(Act::Refuse(why)) = state.script.front().copied() {
            state.script.pop_front();
            state.refusals += 1;
            state.refused |= why == Refusal::Full;
            drop(state);
            self.work.schedule();
            return Err(Rejected { request, why });
        }
        if state.in_flight() >= state.depth {
            state.refused = !state.mute;
            drop(state);
            if let Some(during) = ON_REFUSAL.take() {
                during();
            }
            return Err(Rejected { request, why: Refusal::Full });
        }
        let Body { op, lba, blocks, fua, .. } = *request;
        state.seen.push(Seen { op, lba, blocks, fua });
        state.segments.push(request.data.segments().collect());
        assert!(state.seen.len() < 100_000, "sent without end");
        let act = state.script.pop_front().unwrap_or(Act::Do);
        let tag = state.next;
        state.next += 1;
        let flight = request.accept();
        match act {
            Act::Do => state.answer(flight, Ok(())),
            Act::Fail(error) => state.answer(flight, Err(error)),
            Act::Stall => _ = state.stalled.insert(tag, flight),
            Act::Refuse(_) => unreachable!("seen to above"),
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
