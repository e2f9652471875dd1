//! What the tests share: a machine under Hyper-V with the driver on it.

use alloc::rc::Rc;
use alloc::sync::Arc;

use undercroft_hal::Task;
use undercroft_hal::hosted::ThisMachine;
use undercroft_hal::hyperv::Partition;
use undercroft_hosts::hyperv::{Breach, Controller, Hyperv, Plugged};
pub(super) use undercroft_hosts::rig::*;
use undercroft_hosts::scsi::{Lun as Unit, LunSettings, Target};
use undercroft_hosts::{Config, Disk, Handle, Machine, Schedule};

use crate::defect::Defects;
use crate::{ProbeError, Settings, Storvsc, VmBus};

pub(super) const GOOD: Defects = Defects::none();
/// What one look at the clock takes, in nanoseconds.
const SPIN: u64 = 1_000;
/// The units of target 0.
pub(super) const LUNS: [u32; 3] = [0, 5, 63];

/// A machine with one controller: a target 0 with units 0, 5 (of 4096-byte blocks) and 63, filled by the seeds 0, 5 and 63.
pub(super) struct Rig {
    pub(super) machine: Rc<Machine>,
    pub(super) host: Handle<Plugged>,
    pub(super) settings: Settings,
    /// The breaches that the guest may have committed.
    pub(super) allowed: fn(&Breach) -> bool,
    /// Whether memory may stay with the host.
    pub(super) leaks: bool,
}

pub(super) fn unit(seed: u64, block_size: u32) -> Unit {
    let settings = LunSettings { block_size, serial: format!("S{seed}"), ..LunSettings::default() };
    Unit::new(Disk::patterned(1 << 14, seed), settings)
}

impl Rig {
    pub(super) fn new(config: Config) -> Self {
        let machine = Machine::new(config);
        // What waits by looking at the clock looks often enough at this.
        machine.spins_take(SPIN);
        let settings = undercroft_hosts::hyperv::Settings {
            vps: config.cpus as u32,
            ..undercroft_hosts::hyperv::Settings::default()
        };
        let mut host = Hyperv::new(settings);
        let target = Target::new().with(0, unit(0, 512)).with(5, unit(5, 4096)).with(63, unit(63, 512));
        host.add_controller(Controller::scsi(1, target));
        let host = machine.add_window(Plugged::new(host), true);
        Self { machine, host, settings: Settings::default(), allowed: |_| false, leaks: false }
    }

    pub(super) fn schedule(schedule: Schedule) -> Self {
        Self::new(Config { schedule, ..Config::default() })
    }

    pub(super) fn cpus(cpus: usize, schedule: Schedule, seed: u64) -> Self {
        Self::new(Config { schedule, cpus, seed, ..Config::default() })
    }

    pub(super) fn with(self, f: impl FnOnce(&mut Hyperv)) -> Self {
        self.model(f);
        self
    }

    pub(super) fn settings(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut this = self;
        change(&mut this.settings);
        this
    }

    pub(super) fn model<R>(&self, f: impl FnOnce(&mut Hyperv) -> R) -> R {
        self.host.with(|plugged| f(&mut plugged.host))
    }

    /// Runs `f` with a connected bus, and checks afterwards that nothing is left and that the driver kept to the interface.
    pub(super) fn on_bus<R>(&self, defects: Defects, f: impl FnOnce(&Task, &VmBus) -> R) -> R {
        let run = || {
            self.machine.run(|task| {
                let partition = Partition::start(task, Arc::new(ThisMachine)).expect("starts");
                let bus = VmBus::with_defects(task, partition, &self.settings, defects).expect("connects");
                let result = f(task, &bus);
                drop(bus);
                settle(task);
                result
            })
        };
        let result = if self.leaks { undercroft_hal::hosted::leaks::allowed(run) } else { run() };
        self.check();
        result
    }

    pub(super) fn check(&self) {
        let mut breaches = self.model(|host| host.breaches().to_vec());
        breaches.retain(|breach| !(self.allowed)(breach));
        assert_eq!(breaches, []);
        if !self.leaks {
            assert_eq!(self.machine.live_dma_blocks(), 0, "DMA memory is left behind");
        }
    }

    pub(super) fn probe(&self, task: &Task, bus: &VmBus, defects: Defects) -> Result<Storvsc, ProbeError> {
        let offer = bus.offers()[0];
        Storvsc::with_defects(task, bus, &offer, self.settings, defects)
    }

    /// Runs `f` with a driver of the first controller.
    pub(super) fn run<R>(&self, defects: Defects, f: impl FnOnce(&Task, Arc<Storvsc>) -> R) -> R {
        self.on_bus(defects, |task, bus| {
            let driver = Arc::new(self.probe(task, bus, defects).expect("probes"));
            let result = f(task, driver);
            settle(task);
            result
        })
    }
}
