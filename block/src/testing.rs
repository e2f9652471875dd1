//! A RAM disk for tests: completions from a bottom half, in any order, held back or failed at will.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

use undercroft_hal::BottomHalf;
use undercroft_hal::dma::DmaConstraints;
use undercroft_hal::work::{BottomHalfWork, Turn};

use crate::*;

#[derive(Default)]
pub struct State {
    pub store: Vec<u8>,
    pub queue: VecDeque<InFlight>,
    /// Completions to hold back until `release`.
    pub held: bool,
    /// Errors of the next requests.
    pub errors: VecDeque<Error>,
    /// Blocks of the requests that arrived.
    pub log: Vec<(Op, u64, u32)>,
    pub last_first: bool,
    /// To be told from the next bottom half.
    events: Vec<Event>,
    refused: bool,
}

pub struct RamDisk {
    identity: Identity,
    info: Info,
    pub state: Mutex<State>,
    watcher: Mutex<Option<Arc<dyn Watcher>>>,
    work: BottomHalfWork,
}

impl RamDisk {
    pub fn new(image: Vec<u8>, block_size: u32, depth: u32) -> Arc<Self> {
        let capacity = image.len() as u64 / u64::from(block_size);
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            Self {
                identity: Identity {
                    driver: "ram",
                    controller: "test".into(),
                    serial: "RAM".into(),
                    model: String::new(),
                    interrupts: String::new(),
                    transport: String::new(),
                },
                info: Info {
                    capacity,
                    block_size,
                    physical_block_size: block_size,
                    queues: 1,
                    depth,
                    features: Features::VOLATILE_CACHE | Features::DISCARD,
                    limits: Limits {
                        max_segments: 4,
                        max_segment_bytes: 1 << 20,
                        joint: 0,
                        max_transfer_bytes: 1 << 20,
                        max_discard_blocks: u32::MAX,
                        max_write_zeroes_blocks: 0,
                        dma: DmaConstraints::ANY,
                    },
                },
                state: Mutex::new(State { store: image, ..State::default() }),
                watcher: Mutex::default(),
                work: BottomHalfWork::new(0, move |cx| {
                    if let Some(disk) = this.upgrade() {
                        disk.work(cx);
                    }
                    Turn::Done
                }),
            }
        })
    }

    /// Lets held completions go.
    pub fn release(&self) {
        self.state.lock().unwrap().held = false;
        self.work.schedule();
    }

    /// Tells of an event, soon.
    pub fn announce(&self, event: Event) {
        self.state.lock().unwrap().events.push(event);
        self.work.schedule();
    }

    fn work(&self, cx: &BottomHalf) {
        let events = std::mem::take(&mut self.state.lock().unwrap().events);
        let watcher = self.watcher.lock().unwrap().clone();
        for event in events {
            watcher.iter().for_each(|watcher| watcher.event(cx, event));
        }
        loop {
            let mut state = self.state.lock().unwrap();
            let next = if state.held {
                None
            } else if state.last_first {
                state.queue.pop_back()
            } else {
                state.queue.pop_front()
            };
            let Some(mut flight) = next else { return };
            let result = match state.errors.pop_front() {
                Some(error) => Err(error),
                None => state.run(&mut flight, self.info.block_size),
            };
            let room = std::mem::take(&mut state.refused);
            drop(state);
            flight.finish(cx, result);
            let watcher = self.watcher.lock().unwrap().clone();
            if let (true, Some(watcher)) = (room, watcher) {
                watcher.event(cx, Event::Room);
            }
        }
    }
}

impl State {
    fn run(&mut self, flight: &mut InFlight, block_size: u32) -> Result<(), Error> {
        let Body { op, lba, .. } = **flight.request();
        let mut at = (lba * u64::from(block_size)) as usize;
        for piece in flight.data_mut().pieces_mut() {
            let range = at..at + piece.len();
            match op {
                Op::Read => piece.bytes_mut().copy_from_slice(&self.store[range.clone()]),
                _ => self.store[range.clone()].copy_from_slice(piece.bytes()),
            }
            at = range.end;
        }
        Ok(())
    }
}

impl BlockDevice for RamDisk {
    fn identity(&self) -> &Identity {
        &self.identity
    }
    fn info(&self) -> Info {
        self.info
    }
    fn submit(&self, request: Request) -> Result<Tag, Rejected> {
        if let Err(error) = request.check(&self.info) {
            return Err(Rejected { request, why: Refusal::Invalid(error) });
        }
        let mut state = self.state.lock().unwrap();
        if state.queue.len() >= self.info.depth as usize {
            state.refused = true;
            return Err(Rejected { request, why: Refusal::Full });
        }
        state.log.push((request.op, request.lba, request.blocks));
        state.queue.push_back(request.accept());
        Ok(Tag::from_bits(0))
    }
    fn commit(&self) {
        self.work.schedule();
    }
    fn watch(&self, watcher: Arc<dyn Watcher>) {
        *self.watcher.lock().unwrap() = Some(watcher);
    }
}
