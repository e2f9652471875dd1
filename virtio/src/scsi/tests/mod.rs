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

use undercroft_block::scsi::{Address, Direction, Host, HostEvent, Response, Status};
use undercroft_block::{Error, Request, Tag};
use undercroft_hal::{BottomHalf, Task, pci};
use undercroft_hosts::scsi::{Lun as Unit, LunSettings, Target};
use undercroft_hosts::virtio::{Fault, FaultScript, Scsi as Model, ScsiEvent, ScsiLimits, VirtioPci};
use undercroft_hosts::{Config, Disk, Handle, Machine, Schedule};

use super::VirtioScsi;
use crate::ProbeError;
use crate::defect::{Defect, Defects};
use crate::transport::PciTransport;
use crate::wire::DeviceId;
use undercroft_hosts::rig::{Collector, NOTHING, Sink, TEST_UNIT_READY, at, command, end, go, read10, ready, settle};

const GOOD: Defects = Defects::none();
/// The units of target 0.
const LUNS: [u32; 3] = [0, 5, 300];

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

/// Whether `f` panics: what a check does with a broken twin.
fn caught(f: impl FnOnce()) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err()
}
