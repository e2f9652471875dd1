//! Requests to a block device, and a collector of what it completes.

use std::sync::{Arc, Mutex};

use undercroft_block::scsi::{HostEvent, HostWatcher};
use undercroft_block::{BlockDevice, Complete, Completion, Error, Event, Op, Piece, Request, Watcher};
use undercroft_hal::context::{self, Kind};
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::hosted::trap;
use undercroft_hal::{BottomHalf, Task, cpu};

/// A request that is done.
#[derive(Debug)]
pub struct Done {
    /// What its completion was made with.
    pub cookie: u64,
    /// The request itself, with its data.
    pub request: Request,
    /// How it went.
    pub result: Result<(), Error>,
    /// Where its completion ran: the context and the CPU.
    pub context: (Kind, usize),
}

/// Collects completions and events. What it allocates is the test's, not the driver's.
#[derive(Debug, Default)]
pub struct Sink {
    done: Mutex<Vec<Done>>,
    events: Mutex<Vec<Event>>,
    host_events: Mutex<Vec<HostEvent>>,
}

impl Sink {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A completion that comes here.
    pub fn to(self: &Arc<Self>, cookie: u64) -> Completion {
        Completion::new(self.clone(), cookie)
    }

    /// How many requests are done and not yet taken.
    pub fn count(&self) -> usize {
        self.done.lock().unwrap().len()
    }

    /// Takes what is done.
    pub fn take(&self) -> Vec<Done> {
        std::mem::take(&mut *self.done.lock().unwrap())
    }

    /// Waits until `count` requests are done, and takes them.
    pub fn wait(&self, task: &Task, count: usize) -> Vec<Done> {
        task.wait_until(|| self.count() >= count);
        self.take()
    }

    /// Waits for one request.
    pub fn one(&self, task: &Task) -> Done {
        self.wait(task, 1).remove(0)
    }

    /// What the device told.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// What the SCSI host told.
    pub fn host_events(&self) -> Vec<HostEvent> {
        self.host_events.lock().unwrap().clone()
    }

    /// Forgets what was told.
    pub fn forget_events(&self) {
        self.events.lock().unwrap().clear();
        self.host_events.lock().unwrap().clear();
    }
}

impl Complete for Sink {
    fn complete(&self, _cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        let context = (context::current(), cpu::current());
        trap::outside(|| self.done.lock().unwrap().push(Done { cookie, request, result, context }));
    }
}

impl Watcher for Sink {
    fn event(&self, _cx: &BottomHalf, event: Event) {
        trap::outside(|| self.events.lock().unwrap().push(event));
    }
}

impl HostWatcher for Sink {
    fn event(&self, _cx: &BottomHalf, event: HostEvent) {
        trap::outside(|| self.host_events.lock().unwrap().push(event));
    }
}

/// Memory of `bytes` bytes.
///
/// # Panics
/// If the machine has none left.
pub fn buffer(bytes: usize) -> DmaBuf {
    DmaBuf::new(bytes, DmaConstraints::ANY).expect("memory")
}

/// A read of `blocks` blocks of `block_size` bytes.
pub fn read(lba: u64, blocks: u32, block_size: u32, completion: Completion) -> Request {
    Request::new(Op::Read, lba, blocks, buffer((blocks * block_size) as usize).into(), completion)
}

/// A write of `fill`, in blocks of `block_size` bytes.
pub fn write(lba: u64, fill: &[u8], block_size: u32, completion: Completion) -> Request {
    let mut buf = buffer(fill.len());
    buf.copy_from_slice(fill);
    Request::new(Op::Write, lba, fill.len() as u32 / block_size, buf.into(), completion)
}

/// The bytes that a request carries.
pub fn bytes(request: &Request) -> Vec<u8> {
    request.data.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect()
}

/// Pieces of 512 bytes that lie apart, every other one not at the beginning of its page.
pub fn pieces(count: usize) -> Vec<Piece> {
    (0..count).map(|n| Piece::new(buffer(1024), n % 2 * 512, 512)).collect()
}

/// Submits one request and waits for it.
///
/// # Panics
/// If the device refuses it.
pub fn one(task: &Task, device: &dyn BlockDevice, sink: &Sink, request: Request) -> Done {
    device.submit(request).expect("is taken");
    device.commit();
    sink.one(task)
}
