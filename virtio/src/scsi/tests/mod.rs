//! The driver against the model of another hand: true commands, true disks, true events.

mod contexts;
mod disks;
mod hazards;
mod hotplug;
mod management;
mod patterns;

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::Mutex;

use undercroft_block::scsi::{
    Address, Cdb, Command, Direction, Host, HostEvent, Initiator, Lun, Outcome, Refused, Response, Status,
};
use undercroft_block::{Complete, Completion, Data, Error, Op, Request, Tag};
use undercroft_hal::{BottomHalf, Task, pci};
use undercroft_hosts::scsi::{Lun as Unit, LunSettings, Target};
use undercroft_hosts::virtio::{Fault, FaultScript, Scsi as Model, ScsiEvent, ScsiLimits, VirtioPci};
use undercroft_hosts::{Config, Disk, Handle, Machine, Schedule};

use super::VirtioScsi;
use crate::ProbeError;
use crate::defect::{Defect, Defects};
use crate::testing::{Sink, buffer, settle};
use crate::transport::PciTransport;
use crate::wire::DeviceId;

const GOOD: Defects = Defects::none();

/// A machine with one virtio-scsi host: a target 0 with units 0, 5 (of 4096-byte blocks) and 300, filled by the seeds 0, 5 and 300.
struct Rig {
    machine: Rc<Machine>,
    host: Handle<VirtioPci<Model>>,
}

fn unit(seed: u64, block_size: u32) -> Unit {
    let settings = LunSettings { block_size, serial: format!("S{seed}"), ..LunSettings::default() };
    Unit::new(Disk::patterned(1 << 14, seed), settings)
}

impl Rig {
    fn new(config: Config, limits: ScsiLimits) -> Self {
        let machine = Machine::new(config);
        let target = Target::new().with(0, unit(0, 512)).with(5, unit(5, 4096)).with(300, unit(300, 512));
        let mut model = Model::new(target);
        model.limits = limits;
        Self { host: machine.add_virtio_pci(model), machine }
    }

    fn schedule(schedule: Schedule) -> Self {
        Self::new(Config { schedule, ..Config::default() }, ScsiLimits { max_target: 3, ..ScsiLimits::default() })
    }

    fn faults(self, script: FaultScript) -> Self {
        self.host.with(|device| device.set_faults(script));
        self
    }

    fn probe(&self, task: &Task, defects: Defects) -> Result<VirtioScsi, ProbeError> {
        let function = pci::devices(task).into_iter().find(|f| f.address == self.host.address()).expect("is there");
        VirtioScsi::with_defects(
            task,
            Box::new(PciTransport::new(task, function, DeviceId::SCSI_HOST)?),
            undercroft_hal::dma::DmaConstraints::ANY,
            defects,
        )
    }

    /// Runs `f` with a driver, and checks afterwards that nothing is left and that the driver kept to the specification.
    fn run<R>(&self, defects: Defects, f: impl FnOnce(&Task, Arc<VirtioScsi>) -> R) -> R {
        let result = self.machine.run(|task| {
            let driver = Arc::new(self.probe(task, defects).expect("probes"));
            let result = f(task, driver);
            settle(task);
            result
        });
        assert_eq!(self.host.with(|device| device.breaches()), []);
        assert_eq!(self.machine.live_dma_blocks(), 0);
        result
    }
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    cookie: u64,
    response: Response,
    status: Status,
    sense: Vec<u8>,
    residual: u32,
    data: Vec<u8>,
}

/// Collects what comes back.
#[derive(Default)]
struct Collector {
    answers: Mutex<Vec<Answer>>,
}

impl Collector {
    fn wait(&self, task: &Task, count: usize) -> Vec<Answer> {
        task.wait_until(|| self.answers.lock().unwrap().len() >= count);
        core::mem::take(&mut *self.answers.lock().unwrap())
    }

    fn count(&self) -> usize {
        self.answers.lock().unwrap().len()
    }
}

impl Initiator for Collector {
    fn done(self: Arc<Self>, cx: &BottomHalf, command: Command, outcome: &Outcome<'_>) {
        let data = command.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect();
        // The cookie travels as the block number, which nobody looks at.
        let request = command.into_request();
        self.answers.lock().unwrap().push(Answer {
            cookie: request.request().lba,
            response: outcome.response,
            status: outcome.status,
            sense: outcome.sense.to_vec(),
            residual: outcome.residual,
            data,
        });
        request.finish(cx, Ok(()));
    }
}

fn at(target: u16, lun: u32) -> Address {
    Address { target, lun: Lun::new(lun).unwrap() }
}

/// Drops what is finished.
struct Drain;

impl Complete for Drain {
    fn complete(&self, _cx: &BottomHalf, _cookie: u64, request: Request, _result: Result<(), Error>) {
        drop(request);
    }
}

/// A command with `bytes` of data, in or out.
fn command(
    collector: &Arc<Collector>,
    cookie: u64,
    to: Address,
    cdb: [u8; 10],
    (direction, bytes): (Direction, usize),
) -> Command {
    let data = if bytes == 0 { Data::None } else { buffer(bytes).into() };
    let request = Request::new(Op::Read, cookie, 1, data, Completion::new(Arc::new(Drain), cookie));
    Command::new(to, Cdb::new(cdb), direction, request.accept(), Arc::clone(collector) as Arc<dyn Initiator>)
}

const TEST_UNIT_READY: [u8; 10] = [0; 10];
const NOTHING: (Direction, usize) = (Direction::None, 0);

const fn read10(lba: u8, blocks: u8) -> [u8; 10] {
    [0x28, 0, 0, 0, 0, lba, 0, 0, blocks, 0]
}

fn go(driver: &VirtioScsi, command: Command) -> Result<Tag, Refused> {
    let tag = driver.submit(command)?;
    driver.commit();
    Ok(tag)
}

/// Clears the unit attentions that every unit has after power-on.
fn ready(task: &Task, driver: &VirtioScsi, collector: &Arc<Collector>) {
    for lun in [0, 5, 300] {
        go(driver, command(collector, 0, at(0, lun), TEST_UNIT_READY, NOTHING)).unwrap();
        collector.wait(task, 1);
    }
}

/// Gives a refused command's request an end.
fn end(refused: Refused) -> undercroft_block::Refusal {
    drop(refused.command.into_request().give_back());
    refused.why
}

/// Whether `f` panics: what a check does with a broken twin.
fn caught(f: impl FnOnce()) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err()
}
