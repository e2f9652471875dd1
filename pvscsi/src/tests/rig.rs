//! What the tests share: a machine with an adapter and the driver on it.

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;

use undercroft_block::scsi::{Command, Direction};
use undercroft_block::{Data, Piece};
use undercroft_hal::{Task, pci};
use undercroft_hosts::pvscsi::{FaultScript, Knobs, Layout, Pvscsi as Model};
use undercroft_hosts::rig::{Collector, at, settle, with_data};
use undercroft_hosts::scsi::{Lun as Unit, LunSettings, Target};
use undercroft_hosts::{Config, Disk, Handle, Machine, Schedule};

use crate::defect::Defects;
use crate::{ProbeError, Pvscsi};

pub(super) const GOOD: Defects = Defects::none();
/// The units of target 0.
pub(super) const LUNS: [u32; 3] = [0, 5, 300];

/// A machine with one adapter: a target 0 with units 0, 5 (of 4096-byte blocks) and 300, filled by the seeds 0, 5 and 300, and a target 3
/// with unit 0, filled by the seed 3.
pub(super) struct Rig {
    pub(super) machine: Rc<Machine>,
    pub(super) host: Handle<Model>,
}

pub(super) fn unit(seed: u64, block_size: u32) -> Unit {
    let settings = LunSettings { block_size, serial: format!("S{seed}"), ..LunSettings::default() };
    Unit::new(Disk::patterned(1 << 14, seed), settings)
}

impl Rig {
    pub(super) fn new(config: Config, layout: Layout, knobs: Knobs) -> Self {
        let machine = Machine::new(config);
        let target = Target::new().with(0, unit(0, 512)).with(5, unit(5, 4096)).with(300, unit(300, 512));
        let mut model = Model::new(layout, target);
        model.targets.insert(3, Target::new().with(0, unit(3, 512)));
        model.knobs = Knobs { max_targets: knobs.max_targets.or(Some(8)), ..knobs };
        Self { host: machine.add_pci(model), machine }
    }

    pub(super) fn schedule(schedule: Schedule) -> Self {
        Self::new(Config { schedule, ..Config::default() }, Layout::MsiX, Knobs::default())
    }

    pub(super) fn knobs(schedule: Schedule, knobs: Knobs) -> Self {
        Self::new(Config { schedule, ..Config::default() }, Layout::MsiX, knobs)
    }

    pub(super) fn faults(self, script: FaultScript) -> Self {
        self.host.with(|device| device.set_faults(script));
        self
    }

    pub(super) fn probe(&self, task: &Task, defects: Defects) -> Result<Pvscsi, ProbeError> {
        let function = pci::devices(task).into_iter().find(|f| f.address == self.host.address()).expect("is there");
        Pvscsi::with_defects(task, function, defects)
    }

    /// Runs `f` with a driver, and checks afterwards that nothing is left and that the driver kept to the interface.
    pub(super) fn run<R>(&self, defects: Defects, f: impl FnOnce(&Task, Arc<Pvscsi>) -> R) -> R {
        let result = self.machine.run(|task| {
            let driver = Arc::new(self.probe(task, defects).expect("probes"));
            let result = f(task, driver);
            settle(task);
            result
        });
        assert_eq!(self.host.with(|device| device.breaches()), []);
        assert_eq!(self.machine.live_dma_blocks(), 0, "DMA memory is left behind");
        result
    }

    pub(super) fn model<R>(&self, f: impl FnOnce(&mut Model) -> R) -> R {
        self.host.with(f)
    }
}

/// A command with its data in pieces of 512 bytes, each in a buffer of its own.
pub(super) fn with_pieces(
    collector: &Arc<Collector>,
    cookie: u64,
    cdb: [u8; 10],
    direction: Direction,
    data: Vec<Piece>,
) -> Command {
    with_data(collector, cookie, at(0, 0), cdb, direction, Data::List(data))
}

pub(super) fn pattern(seed: u64, sector: u64, sectors: u64) -> Vec<u8> {
    (sector..sector + sectors).flat_map(|sector| Disk::pattern(seed, sector)).collect()
}
