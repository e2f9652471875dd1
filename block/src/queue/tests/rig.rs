//! Who submits to the model, and everything else that a test of the queue needs.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::{BottomHalf, Instant, Task};
use undercroft_hosts::{Config as MachineConfig, Machine, Schedule};
use undercroft_timer::timers;

use super::model::{Act, BLOCK, Model};
use crate::queue::{BlockQueue, Config};
use crate::*;

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
