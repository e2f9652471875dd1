//! The driver against the model of another hand. Each test runs the true driver, interrupts and bottom halves included.

mod basics;

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::Mutex;

use undercroft_block::{
    BlockDevice, Complete, Completion, Data, Error, Event, Op, Piece, Rejected, Request, Tag, Watcher,
};
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::{BottomHalf, Task, pci};
use undercroft_hosts::virtio::{Blk as Model, BlkLimits, FaultScript, VirtioPci};
use undercroft_hosts::{Config, Disk, Handle, Machine, Schedule};

use super::VirtioBlk;
use crate::ProbeError;
use crate::defect::Defects;
use crate::transport::PciTransport;
use crate::wire::DeviceId;

pub(super) const SEED: u64 = 3;

/// A machine with one virtio-blk device on PCI.
pub(super) struct Rig {
    pub(super) machine: Rc<Machine>,
    pub(super) host: Handle<VirtioPci<Model>>,
    pub(super) disk: Disk,
}

impl Rig {
    pub(super) fn new(limits: BlkLimits) -> Self {
        Self::with(Config::default(), limits)
    }

    pub(super) fn with(config: Config, limits: BlkLimits) -> Self {
        let machine = Machine::new(config);
        let disk = Disk::patterned(1 << 16, SEED);
        let host = machine.add_virtio_pci(Model::with_limits(disk.clone(), limits));
        Self { machine, host, disk }
    }

    pub(super) fn schedule(schedule: Schedule) -> Self {
        Self::with(Config { schedule, ..Config::default() }, BlkLimits::default())
    }

    /// Sets the fault script; the driver's question for the serial number is request 0.
    pub(super) fn faults(self, script: FaultScript) -> Self {
        self.host.with(|device| device.set_faults(script));
        self
    }

    pub(super) fn probe(&self, task: &Task, defects: Defects) -> Result<VirtioBlk, ProbeError> {
        let function = pci::devices(task).into_iter().find(|f| f.address == self.host.address()).expect("is there");
        let transport = PciTransport::new(task, function, DeviceId::BLOCK)?;
        VirtioBlk::with_defects(task, Box::new(transport), defects)
    }

    /// Runs `f` with a driver, and checks afterwards that nothing is left and that the driver kept to the specification.
    pub(super) fn run<R>(&self, f: impl FnOnce(&Task, VirtioBlk) -> R) -> R {
        let result = self.machine.run(|task| {
            let driver = self.probe(task, Defects::default()).expect("probes");
            let result = f(task, driver);
            for _ in 0..10_000 {
                task.run_pending();
            }
            result
        });
        assert_eq!(self.host.with(|device| device.breaches().to_vec()), []);
        assert_eq!(self.machine.live_dma_blocks(), 0);
        result
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) cookie: u64,
    pub(super) request: Request,
    pub(super) result: Result<(), Error>,
}

/// Collects completions and events.
#[derive(Debug, Default)]
pub(super) struct Sink {
    pub(super) done: Mutex<Vec<Done>>,
    pub(super) events: Mutex<Vec<Event>>,
}

impl Sink {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(super) fn count(&self) -> usize {
        self.done.lock().unwrap().len()
    }

    pub(super) fn take(&self) -> Vec<Done> {
        core::mem::take(&mut *self.done.lock().unwrap())
    }

    pub(super) fn to(self: &Arc<Self>, cookie: u64) -> Completion {
        Completion::new(self.clone(), cookie)
    }

    /// Waits for `count` completions in all.
    pub(super) fn wait(&self, task: &Task, count: usize) -> Vec<Done> {
        task.wait_until(|| self.count() >= count);
        self.take()
    }
}

impl Complete for Sink {
    fn complete(&self, _cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        self.done.lock().unwrap().push(Done { cookie, request, result });
    }
}

impl Watcher for Sink {
    fn event(&self, _cx: &BottomHalf, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

pub(super) fn buffer(bytes: usize) -> DmaBuf {
    DmaBuf::new(bytes, DmaConstraints::ANY).expect("memory")
}

pub(super) fn read(lba: u64, blocks: u32, block_size: u32, completion: Completion) -> Request {
    Request::new(Op::Read, lba, blocks, buffer((blocks * block_size) as usize).into(), completion)
}

pub(super) fn write(lba: u64, fill: &[u8], block_size: u32, completion: Completion) -> Request {
    let mut buf = buffer(fill.len());
    buf.copy_from_slice(fill);
    Request::new(Op::Write, lba, fill.len() as u32 / block_size, buf.into(), completion)
}

pub(super) fn bytes(request: &Request) -> Vec<u8> {
    request.data.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect()
}

/// A read into pieces of these many bytes.
pub(super) fn scattered(lba: u64, pieces: &[usize], completion: Completion) -> Request {
    let list: Vec<Piece> = pieces.iter().map(|&len| Piece::from(buffer(len))).collect();
    let blocks = pieces.iter().sum::<usize>() / 512;
    Request::new(Op::Read, lba, blocks as u32, Data::List(list), completion)
}

/// What sectors of the untouched disk hold.
pub(super) fn pattern(sector: u64, sectors: u64) -> Vec<u8> {
    (sector..sector + sectors).flat_map(|sector| Disk::pattern(SEED, sector)).collect()
}

/// Submits and commits one.
pub(super) fn go(driver: &VirtioBlk, request: Request) -> Result<Tag, Rejected> {
    let tag = driver.submit(request)?;
    driver.commit();
    Ok(tag)
}
