//! The glue: a machine under the model, the driver on it, its disk, and who collects what completes. The driver's own tests use it, too.

#![allow(dead_code, reason = "two test programs have it")]

use std::rc::Rc;
use std::sync::Arc;

use undercroft_block::BlockDevice;
use undercroft_hal::hosted::{ThisMachine, leaks};
use undercroft_hal::xen::Domain;
use undercroft_hal::{Task, cpu};
#[allow(unused_imports, reason = "two test programs have it")]
pub use undercroft_hosts::rig::{Done, Sink, buffer, bytes, one, read, says, write};
use undercroft_hosts::xen::{Counts, Event, Knobs, Plugged, Settings, VbdSettings, Xen};
use undercroft_hosts::{Config, Disk, Handle, Machine, Schedule};
use undercroft_timer::timers;
use undercroft_xen::blk::{Config as Wishes, ConnectError, XenDisk};
use undercroft_xen::store::Store;

pub const SECTORS: u64 = 1 << 14;
pub const NUMBER: &str = "51712";

/// A machine under Xen with one disk, filled by the seed 1.
pub struct Rig {
    pub machine: Rc<Machine>,
    pub host: Handle<Plugged>,
    pub disk: Disk,
    pub wishes: Wishes,
}

impl Rig {
    pub fn new(config: Config, knobs: Knobs, settings: VbdSettings) -> Self {
        let machine = Machine::new(config);
        let mut host = Xen::new(Settings { vcpus: config.cpus as u32, ..Settings::default() });
        host.knobs = knobs;
        let disk = Disk::patterned(SECTORS, 1);
        host.add_vbd(0, disk.clone(), settings);
        let host = machine.add_window(Plugged::new(host), true);
        Self { machine, host, disk, wishes: Wishes::default() }
    }

    pub fn plain() -> Self {
        Self::with(VbdSettings::default())
    }

    pub fn with(settings: VbdSettings) -> Self {
        Self::new(Config::default(), Knobs::default(), settings)
    }

    pub fn scheduled(schedule: Schedule, seed: u64) -> Self {
        Self::new(Config { schedule, seed, ..Config::default() }, Knobs::default(), VbdSettings::default())
    }

    pub fn model<R>(&self, f: impl FnOnce(&mut Xen) -> R) -> R {
        self.host.with(|plugged| f(&mut plugged.host))
    }

    pub fn counts(&self) -> Counts {
        self.model(|host| host.counts())
    }

    pub fn happen(&self, event: Event) {
        self.host.with(|plugged| plugged.happen(event));
    }

    /// Runs `f` with the hypervisor's interface and xenstore.
    pub fn bare<R>(&self, f: impl FnOnce(&Task, &Arc<Domain>, &Arc<Store>) -> R) -> R {
        self.machine.run(|task| {
            timers::start_service(task);
            let domain = Arc::new(Domain::start(task, Arc::new(ThisMachine)).expect("the interface starts"));
            let store = Store::connect(task, &domain).expect("xenstore is there");
            let result = f(task, &domain, &store);
            settle(task);
            result
        })
    }

    /// As [`Rig::bare`]; afterwards nothing is left, and the driver has kept to the interface.
    pub fn domain<R>(&self, f: impl FnOnce(&Task, &Arc<Domain>, &Arc<Store>) -> R) -> R {
        let result = self.bare(f);
        self.check_ledgers();
        result
    }

    pub fn check_ledgers(&self) {
        self.model(|host| {
            assert_eq!(host.breaches(), []);
            assert_eq!(host.mapped(), 0, "references are still mapped");
            assert_eq!(host.granted(), 0, "references are still granted");
            assert_eq!(host.watches(), 0, "watches are left behind");
            assert_eq!(host.transactions(), 0, "transactions are left behind");
            assert_eq!(host.open_ports(), 0, "event channels are left behind");
        });
        assert_eq!(self.machine.live_dma_blocks(), 0, "DMA memory is left behind");
    }

    pub fn connect(
        &self,
        task: &Task,
        domain: &Arc<Domain>,
        store: &Arc<Store>,
    ) -> Result<Option<Arc<XenDisk>>, ConnectError> {
        XenDisk::connect(task, domain, store, NUMBER, self.wishes)
    }

    /// Runs `f` with the disk.
    pub fn disk<R>(&self, f: impl FnOnce(&Task, &Arc<XenDisk>) -> R) -> R {
        self.domain(|task, domain, store| {
            let disk = self.connect(task, domain, store).expect("connects").expect("is a disk");
            let result = f(task, &disk);
            assert!(disk.close(task), "the back end does not let go");
            settle(task);
            result
        })
    }

    /// Runs `f` with a disk that may be left in any state by it, on a host that may break every promise.
    pub fn wild(&self, f: impl FnOnce(&Task, &Arc<Domain>, &Arc<Store>)) {
        leaks::allowed(|| self.bare(f));
    }

    pub fn expected(&self, lba: u64, blocks: u64) -> Vec<u8> {
        (lba..lba + blocks).flat_map(|sector| self.disk.read_sector(sector)).collect()
    }

    /// Reads some blocks and holds them against what is there.
    pub fn check_disk(&self, task: &Task, disk: &XenDisk, lba: u64) {
        let size = disk.info().block_size;
        let sink = Sink::new();
        let done = one(task, disk, &sink, read(lba, 8, size, sink.to(0)));
        assert_eq!(done.result, Ok(()));
        let sectors = u64::from(size / 512);
        assert!(
            bytes(&done.request) == self.expected(lba * sectors, 8 * sectors),
            "other data than what is on the disk"
        );
    }
}

/// Lets everything that is pending happen.
pub fn settle(task: &Task) {
    for _ in 0..300 {
        task.run_pending();
        cpu::relax();
    }
}
