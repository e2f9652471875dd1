//! What the drivers' tests share: a collector of completions, buffers, requests.

use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::Mutex;

use undercroft_block::scsi::{HostEvent, HostWatcher};
use undercroft_block::{Complete, Completion, Error, Event, Op, Request, Watcher};
use undercroft_hal::context::{self, Kind};
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::{BottomHalf, Task, cpu};

/// What came back.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) cookie: u64,
    pub(crate) request: Request,
    pub(crate) result: Result<(), Error>,
    /// Where its completion ran.
    pub(crate) context: (Kind, usize),
}

/// Collects completions and events.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    pub(crate) done: Mutex<Vec<Done>>,
    pub(crate) events: Mutex<Vec<Event>>,
    pub(crate) host_events: Mutex<Vec<HostEvent>>,
}

impl Sink {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(crate) fn count(&self) -> usize {
        self.done.lock().unwrap().len()
    }

    pub(crate) fn take(&self) -> Vec<Done> {
        core::mem::take(&mut *self.done.lock().unwrap())
    }

    pub(crate) fn to(self: &Arc<Self>, cookie: u64) -> Completion {
        Completion::new(self.clone(), cookie)
    }

    /// Waits for `count` completions in all.
    pub(crate) fn wait(&self, task: &Task, count: usize) -> Vec<Done> {
        task.wait_until(|| self.count() >= count);
        self.take()
    }
}

impl Complete for Sink {
    fn complete(&self, _cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        self.done.lock().unwrap().push(Done { cookie, request, result, context: (context::current(), cpu::current()) });
    }
}

impl Watcher for Sink {
    fn event(&self, _cx: &BottomHalf, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

pub(crate) fn buffer(bytes: usize) -> DmaBuf {
    DmaBuf::new(bytes, DmaConstraints::ANY).expect("memory")
}

pub(crate) fn read(lba: u64, blocks: u32, block_size: u32, completion: Completion) -> Request {
    Request::new(Op::Read, lba, blocks, buffer((blocks * block_size) as usize).into(), completion)
}

pub(crate) fn write(lba: u64, fill: &[u8], block_size: u32, completion: Completion) -> Request {
    let mut buf = buffer(fill.len());
    buf.copy_from_slice(fill);
    Request::new(Op::Write, lba, fill.len() as u32 / block_size, buf.into(), completion)
}

pub(crate) fn bytes(request: &Request) -> Vec<u8> {
    request.data.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect()
}

impl HostWatcher for Sink {
    fn event(&self, _cx: &BottomHalf, event: HostEvent) {
        self.host_events.lock().unwrap().push(event);
    }
}

/// Lets everything that is pending happen.
pub(crate) fn settle(task: &Task) {
    for _ in 0..2000 {
        task.run_pending();
        cpu::relax();
    }
}

/// The message of the panic of `f`: what a check says of a broken twin.
pub(crate) fn says(f: impl FnOnce()) -> String {
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).expect_err("the hazard goes unseen");
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast_ref::<&str>().map_or_else(String::new, |text| (*text).into()),
    }
}
