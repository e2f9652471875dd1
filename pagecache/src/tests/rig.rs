//! A volume on a device that does what a test says, on a machine whose time goes on when a test says so.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use undercroft_block::*;
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::hosted::trap;
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::{BottomHalf, Task, context};
use undercroft_hosts::{Config as MachineConfig, Machine, Schedule};
use undercroft_timer::timers;

use super::device::*;
use crate::*;

/// 64 pages of which any number may be dirty, small transfers, short times.
pub const SMALL: Config = Config {
    pages: 64,
    operations: 16,
    pins: 8,
    handles: 4,
    transfer: 16 << 10,
    read: 16 << 10,
    reads: 3,
    writes: 2,
    tick: Duration::from_millis(10),
    age: 3,
    dirty_percent: 100,
    background_percent: 100,
    retry: (Duration::from_millis(5), Duration::from_millis(40)),
    ahead: 0,
};

/// Bytes of the device that most tests have.
pub const BYTES: u64 = 1 << 20;

/// How an operation ended.
pub struct Ended {
    pub outcome: Outcome,
    pub context: context::Kind,
    /// Which it was of all that ended.
    pub order: usize,
    /// When, on the sink's clock.
    pub at: u64,
}

/// Takes outcomes, each of which must be the first of its cookie.
#[derive(Default)]
pub struct Sink {
    pub ended: Mutex<BTreeMap<u64, Ended>>,
    clock: AtomicU64,
}

impl Sink {
    /// The next moment.
    pub fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn take(&self, cookie: u64, outcome: Outcome) {
        let at = self.tick();
        trap::outside(|| {
            let mut ended = self.ended.lock().unwrap();
            let order = ended.len();
            let before = ended.insert(cookie, Ended { outcome, context: context::current(), order, at });
            assert!(before.is_none(), "operation {cookie} completed twice");
        });
    }
}

impl Finish for Sink {
    fn finish(&self, _: &BottomHalf, cookie: u64, outcome: Outcome) {
        self.take(cookie, outcome);
    }
}

impl FinishInTask for Sink {
    fn finish(&self, _: &Task, cookie: u64, outcome: Outcome) {
        self.take(cookie, outcome);
    }
}

pub struct Rig<'a> {
    pub cx: &'a Task,
    pub machine: &'a Rc<Machine>,
    pub device: Arc<Device>,
    pub volume: Volume,
    pub sink: Arc<Sink>,
}

/// Runs a test; the message if it panics. Checks that everything is given back.
pub fn try_on(info: Info, config: Config, test: impl FnOnce(&Rig<'_>)) -> Result<(), String> {
    let machine = Machine::new(MachineConfig { schedule: Schedule::Eager, ..MachineConfig::default() });
    machine.try_run(|cx| {
        timers::start_service(cx);
        let device = Device::new(info);
        let volume = Volume::open(cx, device.clone(), config).unwrap();
        let rig = Rig { cx, machine: &machine, device, volume, sink: Arc::default() };
        test(&rig);
        rig.end();
    })?;
    assert_eq!(machine.live_dma_blocks(), 0, "all memory is back");
    Ok(())
}

pub fn try_with(config: Config, test: impl FnOnce(&Rig<'_>)) -> Result<(), String> {
    try_on(info(BYTES, 512), config, test)
}

pub fn with_rig(config: Config, test: impl FnOnce(&Rig<'_>)) {
    try_with(config, test).unwrap();
}

pub fn filled(len: usize, fill: u8) -> Data {
    if len == 0 {
        return Data::None;
    }
    let mut buf = DmaBuf::new(len, DmaConstraints::ANY).unwrap();
    buf.fill(fill);
    buf.into()
}

pub fn bytes_of(data: &Data) -> Vec<u8> {
    data.pieces().iter().flat_map(|piece| piece.bytes().iter().copied()).collect()
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

    pub fn done(&self, cookie: u64) -> Done {
        Done::in_bottom_half(self.sink.clone(), cookie)
    }

    pub fn read(&self, cookie: u64, start: u64, len: usize) {
        self.volume.read(self.cx, start, filled(len, 0xee), self.done(cookie)).unwrap();
    }

    pub fn write(&self, cookie: u64, start: u64, len: usize, fill: u8) {
        self.volume.write(self.cx, start, filled(len, fill), self.done(cookie)).unwrap();
    }

    pub fn sync(&self, cookie: u64) {
        self.volume.sync_all(self.cx, self.done(cookie)).unwrap();
    }

    /// How an operation ended; `None`: it has not yet.
    pub fn result(&self, cookie: u64) -> Option<Result<(), Error>> {
        self.sink.ended.lock().unwrap().get(&cookie).map(|ended| ended.outcome.result)
    }

    pub fn bytes(&self, cookie: u64) -> Vec<u8> {
        bytes_of(&self.sink.ended.lock().unwrap()[&cookie].outcome.data)
    }

    pub fn order(&self, cookie: u64) -> usize {
        self.sink.ended.lock().unwrap()[&cookie].order
    }

    pub fn stats(&self) -> Stats {
        self.volume.stats(self.cx)
    }

    pub fn store(&self, start: usize, len: usize) -> Vec<u8> {
        self.device.lock().store[start..start + len].to_vec()
    }

    /// What the volume reads, now.
    pub fn now(&self, start: u64, len: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0xee; len];
        self.volume.read_blocking(self.cx, start, &mut bytes).map(|()| bytes)
    }

    /// The device gives one answer that it holds, by its place in line.
    pub fn answer(&self, at: usize) {
        let device = self.device.clone();
        let work = BottomHalfWork::new(0, move |cx| {
            device.answer(cx, at);
            Turn::Done
        });
        work.schedule();
        self.settle();
    }

    /// The device gives the answer whose turn it is.
    pub fn answer_one(&self) {
        let (count, last) = {
            let mut state = self.device.lock();
            state.held = true;
            (state.flights.len(), matches!(state.order, Order::Last))
        };
        self.answer(if last { count - 1 } else { 0 });
    }

    /// Everything is over: nothing is left but clean pages.
    fn end(self) {
        {
            let mut state = self.device.lock();
            state.faults.clear();
            state.refusals = 0;
            state.keeping = false;
        }
        self.device.release();
        self.settle();
        let ended = std::mem::take(&mut *self.sink.ended.lock().unwrap());
        drop(ended);
        self.settle();
        let stats = self.stats();
        assert_eq!((stats.operations, stats.reading, stats.writing), (0, 0, 0), "something is under way for ever");
        self.volume.verify(self.cx);
        drop(self.volume);
        // What is dirty is written; if that failed before, after a pause.
        for _ in 0..20 {
            self.machine.advance(10_000_000);
            self.cx.run_pending();
        }
        let kept = std::mem::take(&mut self.device.lock().keeps);
        drop(kept);
    }
}
