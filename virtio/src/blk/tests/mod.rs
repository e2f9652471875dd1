//! The driver against the model of another hand. Each test runs the true driver, interrupts and bottom halves included.

mod basics;
mod bounce;
mod cache;
mod contexts;
mod hazards;
mod hostile;
mod packed;
mod patterns;
mod restart;
mod shapes;

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;

use undercroft_block::{BlockDevice, Completion, Data, Error, Event, Op, Piece, Rejected, Request, Tag};
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::{Task, pci};
use undercroft_hosts::virtio::{Blk as Model, BlkLimits, Fault, FaultScript, Virtio, VirtioPci};
use undercroft_hosts::{Config, Disk, Handle, Machine, Schedule};

use super::VirtioBlk;
use crate::ProbeError;
use crate::defect::{Defect, Defects};
use crate::transport::PciTransport;
use crate::wire::DeviceId;
use undercroft_hosts::rig::{Sink, buffer, bytes, read, says, settle, write};

const GOOD: Defects = Defects::none();

pub(super) const SEED: u64 = 3;

/// A machine with one virtio-blk device on PCI.
pub(super) struct Rig {
    pub(super) machine: Rc<Machine>,
    pub(super) host: Handle<VirtioPci<Model>>,
    pub(super) disk: Disk,
    pub(super) reach: DmaConstraints,
}

impl Rig {
    pub(super) fn new(limits: BlkLimits) -> Self {
        Self::with(Config::default(), limits)
    }

    pub(super) fn with(config: Config, limits: BlkLimits) -> Self {
        let machine = Machine::new(config);
        let disk = Disk::patterned(1 << 16, SEED);
        let host = machine.add_virtio_pci(Model::with_limits(disk.clone(), limits));
        Self { machine, host, disk, reach: DmaConstraints::ANY }
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
        VirtioBlk::with_defects(task, Box::new(transport), self.reach, defects)
    }

    /// Runs `f` with a driver, and checks afterwards that nothing is left and that the driver kept to the specification.
    pub(super) fn run<R>(&self, f: impl FnOnce(&Task, VirtioBlk) -> R) -> R {
        self.run_with(Defects::default(), f)
    }

    pub(super) fn run_with<R>(&self, defects: Defects, f: impl FnOnce(&Task, VirtioBlk) -> R) -> R {
        let result = self.machine.run(|task| {
            let driver = self.probe(task, defects).expect("probes");
            let result = f(task, driver);
            settle(task);
            result
        });
        assert_eq!(self.host.with(|device| device.breaches().to_vec()), []);
        assert_eq!(self.machine.live_dma_blocks(), 0);
        result
    }
}

/// Whether `f` panics: what a check does with a broken twin. The machine it ran on is not used again.
pub(super) fn caught(f: impl FnOnce()) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err()
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
