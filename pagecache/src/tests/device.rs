//! A device that does what a test says: holds answers back, reorders them, fails, refuses, loses its cache.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use undercroft_block::*;
use undercroft_hal::BottomHalf;
use undercroft_hal::dma::DmaConstraints;
use undercroft_hal::hosted::trap;
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hosts::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub op: Op,
    pub lba: u64,
    pub blocks: u32,
}

/// Which answer comes first.
#[derive(Debug, Clone)]
pub enum Order {
    First,
    Last,
    Any(Random),
}

pub struct State {
    pub info: Info,
    /// What reads see.
    pub store: Vec<u8>,
    /// What a power cut leaves for certain.
    pub durable: Vec<u8>,
    /// Since the last flush: blocks written, each with all that was written, in order.
    pub unflushed: BTreeMap<u64, Vec<Vec<u8>>>,
    /// How many versions of each block there were when the flush that is under way was sent: it makes those durable, and no others.
    marks: Option<BTreeMap<u64, usize>>,
    pub order: Order,
    /// Answers wait.
    pub held: bool,
    /// Of operations of this kind that touch this block, so many fail.
    pub faults: Vec<(Op, u64, Error, u32)>,
    /// So many submissions are refused for want of room.
    pub refusals: u32,
    pub gone: Option<Error>,
    pub seen: Vec<Seen>,
    pub flights: VecDeque<InFlight>,
    /// Requests come back without their buffers, which are kept.
    pub keeps: Vec<Data>,
    pub keeping: bool,
    told: bool,
}

pub struct Device {
    identity: Identity,
    pub state: Mutex<State>,
    pub watcher: Mutex<Option<Arc<dyn Watcher>>>,
    work: BottomHalfWork,
}

pub fn info(bytes: u64, block_size: u32) -> Info {
    Info {
        capacity: bytes / u64::from(block_size),
        block_size,
        physical_block_size: block_size,
        queues: 1,
        depth: 64,
        features: Features::VOLATILE_CACHE | Features::DISCARD,
        limits: Limits {
            max_segments: 4,
            max_segment_bytes: 1 << 20,
            joint: 0,
            max_transfer_bytes: 64 << 10,
            max_discard_blocks: 24,
            max_write_zeroes_blocks: 0,
            dma: DmaConstraints::ANY,
        },
    }
}

/// What is on a device at first.
pub fn pattern(at: usize) -> u8 {
    (at / 512 * 31 + at % 251) as u8
}

impl Device {
    pub fn new(info: Info) -> Arc<Self> {
        let store: Vec<u8> = (0..info.bytes() as usize).map(pattern).collect();
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
                    unflushed: BTreeMap::new(),
                    marks: None,
                    order: Order::First,
                    held: false,
                    faults: Vec::new(),
                    refusals: 0,
                    gone: None,
                    seen: Vec::new(),
                    flights: VecDeque::new(),
                    keeps: Vec::new(),
                    keeping: false,
                    told: true,
                }),
                watcher: Mutex::default(),
                work: BottomHalfWork::new(0, move |cx| {
                    if let Some(device) = this.upgrade() {
                        device.work(cx);
                    }
                    Turn::Done
                }),
            }
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn release(&self) {
        self.lock().held = false;
        self.work.schedule();
    }

    pub fn hold(&self) {
        self.lock().held = true;
    }

    pub fn fail(&self, op: Op, lba: u64, error: Error, times: u32) {
        trap::outside(|| self.lock().faults.push((op, lba, error, times)));
    }

    pub fn seen(&self, op: Op) -> Vec<Seen> {
        trap::outside(|| self.lock().seen.iter().filter(|seen| seen.op == op).copied().collect())
    }

    pub fn tell(&self, cx: &BottomHalf, event: Event) {
        let watcher = self.watcher.lock().unwrap().clone();
        if let Some(watcher) = watcher {
            watcher.event(cx, event);
        }
    }

    /// Everything ends from now on.
    pub fn remove(&self) {
        let mut state = self.lock();
        (state.gone, state.told, state.held) = (Some(Error::Removed), false, false);
        drop(state);
        self.work.schedule();
    }

    /// Completes one answer, by its place in line.
    pub fn answer(&self, cx: &BottomHalf, at: usize) {
        let Some((flight, result)) = trap::outside(|| {
            let mut state = self.lock();
            let mut flight = state.flights.remove(at)?;
            let result = state.run(&mut flight);
            if state.keeping {
                state.keeps.push(std::mem::take(flight.data_mut()));
            }
            Some((flight, result))
        }) else {
            return;
        };
        flight.finish(cx, result);
    }

    fn work(&self, cx: &BottomHalf) {
        loop {
            let (at, tell, room) = {
                let mut state = self.lock();
                let tell = state.gone.is_some() && !std::mem::replace(&mut state.told, true);
                let count = state.flights.len();
                let at = match &mut state.order {
                    _ if count == 0 => None,
                    Order::First => Some(0),
                    Order::Last => Some(count - 1),
                    Order::Any(random) => Some(random.below(count)),
                };
                (at.filter(|_| !state.held), tell, state.refusals == 0)
            };
            if tell {
                self.tell(cx, Event::Removed);
            }
            let Some(at) = at else { return };
            self.answer(cx, at);
            if room {
                self.tell(cx, Event::Room);
            }
        }
    }

    /// What may be left after a power cut: of each block that was not flushed, any of its versions.
    pub fn cut(&self, random: &mut Random) -> Vec<u8> {
        let state = self.lock();
        let size = state.info.block_size as usize;
        let mut left = state.durable.clone();
        for (lba, versions) in &state.unflushed {
            let chosen = random.below(versions.len() + 1);
            if chosen > 0 {
                let at = *lba as usize * size;
                left[at..at + size].copy_from_slice(&versions[chosen - 1]);
            }
        }
        left
    }
}

impl State {
    fn run(&mut self, flight: &mut InFlight) -> Result<(), Error> {
        if let Some(error) = self.gone {
            return Err(error);
        }
        let Body { op, lba, blocks, .. } = **flight.request();
        let marks = if op == Op::Flush { self.marks.take() } else { None };
        let range = lba..lba + u64::from(blocks);
        let fault = self
            .faults
            .iter_mut()
            .find(|fault| fault.0 == op && fault.3 > 0 && (range.contains(&fault.1) || op == Op::Flush));
        if let Some(fault) = fault {
            fault.3 -= 1;
            return Err(fault.2);
        }
        let size = self.info.block_size as usize;
        let mut at = lba as usize * size;
        let end = at + blocks as usize * size;
        match op {
            Op::Flush => {
                for (lba, count) in marks.into_iter().flatten() {
                    let versions = self.unflushed.get_mut(&lba).expect("versions only grow");
                    let at = lba as usize * size;
                    self.durable[at..at + size].copy_from_slice(&versions[count - 1]);
                    versions.drain(..count);
                    if versions.is_empty() {
                        self.unflushed.remove(&lba);
                    }
                }
            }
            Op::Discard | Op::WriteZeroes => {
                for lba in range {
                    let at = lba as usize * size;
                    self.store[at..at + size].fill(0xdd);
                    self.unflushed.entry(lba).or_default().push(vec![0xdd; size]);
                }
            }
            Op::Read | Op::Write => {
                for piece in flight.data_mut().pieces_mut() {
                    let here = at..at + piece.len();
                    match op {
                        Op::Read => piece.bytes_mut().copy_from_slice(&self.store[here.clone()]),
                        _ => self.store[here.clone()].copy_from_slice(piece.bytes()),
                    }
                    at = here.end;
                }
                assert_eq!(at, end, "the data is the range's");
                if op == Op::Write {
                    for lba in range {
                        let at = lba as usize * size;
                        self.unflushed.entry(lba).or_default().push(self.store[at..at + size].to_vec());
                    }
                }
            }
        }
        Ok(())
    }
}

impl BlockDevice for Device {
    fn identity(&self) -> &Identity {
        &self.identity
    }
    fn info(&self) -> Info {
        self.lock().info
    }
    fn submit(&self, request: Request) -> Result<Tag, Rejected> {
        trap::outside(|| {
            let mut state = self.lock();
            if let Err(error) = request.check(&state.info) {
                return Err(Rejected { request, why: Refusal::Invalid(error) });
            }
            if let Some(error) = state.gone {
                return Err(Rejected { request, why: Refusal::Gone(error) });
            }
            if state.refusals > 0 {
                state.refusals -= 1;
                return Err(Rejected { request, why: Refusal::Full });
            }
            let Body { op, lba, blocks, .. } = *request;
            state.seen.push(Seen { op, lba, blocks });
            if op == Op::Flush {
                let marks = state.unflushed.iter().map(|(lba, versions)| (*lba, versions.len())).collect();
                assert!(state.marks.replace(marks).is_none(), "two flushes at once");
            }
            state.flights.push_back(request.accept());
            Ok(Tag::from_bits(0))
        })
    }
    fn commit(&self) {
        self.work.schedule();
    }
    fn watch(&self, watcher: Arc<dyn Watcher>) {
        *self.watcher.lock().unwrap() = Some(watcher);
    }
}
