//! The glue: a machine under the model, the driver on it, its disks, and who collects what completes.

use std::rc::Rc;
use std::sync::{Arc, Mutex};

use undercroft_block::scsi::{HostEvent, HostWatcher, ScsiDisk, scan};
use undercroft_block::{BlockDevice, Complete, Completion, Error, Op, Request};
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::hosted::ThisMachine;
use undercroft_hal::hyperv::Partition;
use undercroft_hal::{BottomHalf, Task, cpu};
use undercroft_hosts::hyperv::{Controller, Counts, Hyperv, Knobs, Plugged, Settings};
use undercroft_hosts::scsi::{Lun, LunSettings, Target};
use undercroft_hosts::{Config, Disk, Handle, Machine, Schedule};
use undercroft_storvsc::{Settings as Wishes, Storvsc, VmBus};

pub const SECTORS: u64 = 1 << 14;

/// A machine with one controller and a disk at unit 0, filled by the seed 1.
pub struct Rig {
    pub machine: Rc<Machine>,
    pub host: Handle<Plugged>,
    pub disk: Disk,
    pub wishes: Wishes,
}

pub fn lun(disk: &Disk, block_size: u32, serial: &str) -> Lun {
    let settings = LunSettings { block_size, serial: serial.into(), ..LunSettings::default() };
    Lun::new(disk.clone(), settings)
}

impl Rig {
    pub fn new(config: Config, knobs: Knobs) -> Self {
        let machine = Machine::new(config);
        // What waits by looking at the clock looks often enough at this.
        machine.spins_take(2_000);
        let mut host = Hyperv::new(Settings { vps: config.cpus as u32, ..Settings::default() });
        host.knobs = knobs;
        let disk = Disk::patterned(SECTORS, 1);
        host.add_controller(Controller::scsi(1, Target::new().with(0, lun(&disk, 512, "S1"))));
        let host = machine.add_window(Plugged::new(host), true);
        Self { machine, host, disk, wishes: Wishes::default() }
    }

    pub fn plain() -> Self {
        Self::new(Config::default(), Knobs::default())
    }

    pub fn scheduled(schedule: Schedule, seed: u64) -> Self {
        Self::new(Config { schedule, seed, ..Config::default() }, Knobs::default())
    }

    pub fn model<R>(&self, f: impl FnOnce(&mut Hyperv) -> R) -> R {
        self.host.with(|plugged| f(&mut plugged.host))
    }

    pub fn counts(&self) -> Counts {
        self.model(|host| host.counts())
    }

    /// Runs `f` with the hypervisor's interface; afterwards nothing is left, and the driver has kept to the interface.
    pub fn partition<R>(&self, f: impl FnOnce(&Task, Arc<Partition>) -> R) -> R {
        let result = self.machine.run(|task| {
            let partition = Partition::start(task, Arc::new(ThisMachine)).expect("the interface starts");
            let result = f(task, partition);
            settle(task);
            result
        });
        assert_eq!(self.model(|host| host.breaches().to_vec()), []);
        assert_eq!(self.machine.live_dma_blocks(), 0, "DMA memory is left behind");
        assert_eq!(self.model(|host| host.gpadls()), 0, "lists of pages are left behind");
        result
    }

    /// Runs `f` with a connection.
    pub fn bus<R>(&self, f: impl FnOnce(&Task, &VmBus) -> R) -> R {
        self.partition(|task, partition| {
            let bus = VmBus::connect(task, partition, &self.wishes).expect("connects");
            f(task, &bus)
        })
    }

    /// Runs `f` with the driver of the first controller.
    pub fn driver<R>(&self, f: impl FnOnce(&Task, &VmBus, Arc<Storvsc>) -> R) -> R {
        self.bus(|task, bus| {
            let driver = self.probe(task, bus);
            let result = f(task, bus, driver);
            settle(task);
            result
        })
    }

    pub fn probe(&self, task: &Task, bus: &VmBus) -> Arc<Storvsc> {
        // An offer may come after the end of the offers.
        task.wait_until(|| !bus.offers().is_empty());
        let offer = bus.offers()[0];
        Arc::new(Storvsc::new(task, bus, &offer, self.wishes).expect("takes the controller"))
    }

    /// Runs `f` with the disks.
    pub fn disks<R>(&self, f: impl FnOnce(&Task, &[Arc<ScsiDisk>]) -> R) -> R {
        self.driver(|task, _, driver| {
            let disks = scan(task, driver).expect("scans").disks;
            f(task, &disks)
        })
    }

    /// Reads some blocks of the first disk and holds them against what is there.
    pub fn check_reading(&self) {
        self.disks(|task, disks| self.check_disk(task, &disks[0], 7));
    }

    pub fn check_disk(&self, task: &Task, disk: &ScsiDisk, lba: u64) {
        let sink = Sink::new();
        let done = one(task, disk, &sink, read(lba, 8, &sink, 0));
        assert_eq!(done.1, Ok(()));
        assert!(bytes(&done.2) == self.expected(lba, 8), "other data than what is on the disk");
    }

    pub fn expected(&self, lba: u64, blocks: u64) -> Vec<u8> {
        (lba..lba + blocks).flat_map(|sector| self.disk.read_sector(sector)).collect()
    }
}

/// A completion: cookie, result, request.
pub type Done = (u64, Result<(), Error>, Request);

/// Collects completions and events.
#[derive(Debug, Default)]
pub struct Sink {
    done: Mutex<Vec<Done>>,
    pub events: Mutex<Vec<HostEvent>>,
}

impl Sink {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn count(&self) -> usize {
        self.done.lock().unwrap().len()
    }

    pub fn take(&self) -> Vec<Done> {
        std::mem::take(&mut *self.done.lock().unwrap())
    }

    pub fn wait(&self, task: &Task, count: usize) -> Vec<Done> {
        task.wait_until(|| self.count() >= count);
        self.take()
    }
}

impl Complete for Sink {
    fn complete(&self, _cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        self.done.lock().unwrap().push((cookie, result, request));
    }
}

impl HostWatcher for Sink {
    fn event(&self, _cx: &BottomHalf, event: HostEvent) {
        self.events.lock().unwrap().push(event);
    }
}

fn buffer(bytes: usize) -> DmaBuf {
    DmaBuf::new(bytes, DmaConstraints::ANY).expect("memory")
}

pub fn read(lba: u64, blocks: u32, sink: &Arc<Sink>, cookie: u64) -> Request {
    let data = buffer(blocks as usize * 512).into();
    Request::new(Op::Read, lba, blocks, data, Completion::new(Arc::clone(sink) as Arc<dyn Complete>, cookie))
}

pub fn write(lba: u64, fill: &[u8], sink: &Arc<Sink>, cookie: u64) -> Request {
    let mut data = buffer(fill.len());
    data.copy_from_slice(fill);
    let completion = Completion::new(Arc::clone(sink) as Arc<dyn Complete>, cookie);
    Request::new(Op::Write, lba, (fill.len() / 512) as u32, data.into(), completion)
}

pub fn bytes(request: &Request) -> Vec<u8> {
    request.data.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect()
}

/// Submits one request and waits for it.
pub fn one(task: &Task, disk: &ScsiDisk, sink: &Arc<Sink>, request: Request) -> Done {
    disk.submit(request).expect("is taken");
    disk.commit();
    sink.wait(task, 1).remove(0)
}

/// Lets everything that is pending happen.
pub fn settle(task: &Task) {
    for _ in 0..3000 {
        task.run_pending();
        cpu::relax();
    }
}
