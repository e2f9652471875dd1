//! Finding every disk of the machine. Task context.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;

use undercroft_block::queue::{self, BlockQueue};
use undercroft_block::scsi::{Bus, Host, ScsiDisk};
use undercroft_block::{BlockDevice, Features, Identity};
use undercroft_hal::irq::IrqLine;
use undercroft_hal::virtio_hal::VirtioHal;
use undercroft_hal::{Task, pci};
use undercroft_pagecache::Volume;
use undercroft_virtio::blk::VirtioBlk;
use undercroft_virtio::wire::DeviceId;
use undercroft_virtio::{Found, probe_mmio, probe_pci};

use crate::cached::Pages;
use crate::faults::Crew;
use crate::hyperv::{self, Vmbus};
use crate::json::{Object, Value};
use crate::load::Load;
use crate::news::{Attention, News};
use crate::report::Report;
use crate::xen::{Vbds, Xen};
use crate::{entropy, partitions};

/// A disk in use.
pub struct Disk {
    /// Its driver and a running number.
    pub name: String,
    /// The device, behind its queue.
    pub device: Arc<dyn BlockDevice>,
    /// The device below it again, if it is of the kind whose write cache can be switched.
    pub cache: Option<Arc<VirtioBlk>>,
    /// The queue.
    pub queue: Arc<BlockQueue>,
    /// The cache before it, which is a submitter of its own; without memory for one there is none.
    pub(crate) volume: Option<Rc<Volume>>,
    /// The queue once more, with a line and a watcher that nobody else replaces: for news and for what goes on in the background.
    pub(crate) background: Arc<BlockQueue>,
    /// What has happened to it.
    pub(crate) news: Arc<News>,
    /// A SCSI disk, and the bus that it is on.
    pub(crate) scsi: Option<(Arc<Bus>, Arc<ScsiDisk>)>,
    /// What goes on in the background, if anything.
    pub(crate) load: RefCell<Option<Arc<Load>>>,
    /// The tasks of the fault workload, while that runs.
    pub(crate) crew: RefCell<Option<Crew>>,
}

/// All disks in use, and what new ones are found behind.
pub struct Disks {
    /// The disks.
    pub list: Vec<Disk>,
    pub(crate) hosts: Vec<KnownHost>,
    /// Those of other domains.
    pub(crate) vbds: Option<Vbds>,
    /// What Hyper-V's disks are found on.
    pub(crate) vmbus: Option<Vmbus>,
    pub(crate) attention: Arc<Attention>,
    /// How many disks each driver ever had: no name is used twice.
    made: Vec<(&'static str, usize)>,
    /// How their queues behave.
    config: queue::Config,
    /// The cache before them.
    pub(crate) pages: Pages,
}

/// A SCSI host.
pub(crate) struct KnownHost {
    pub(crate) bus: Arc<Bus>,
    pub(crate) place: String,
    /// [`Bus::changes`] when it was looked at last.
    pub(crate) seen: u32,
}

/// A window of virtio-mmio registers that the machine told of.
#[derive(Debug, Clone, Copy)]
pub struct MmioWindow {
    /// Physical address.
    pub base: u64,
    /// Bytes.
    pub bytes: usize,
    /// Its interrupt.
    pub line: IrqLine,
}

/// Finds disks on PCI and in the windows, in the order of their places. `first` is called when a device's first command goes out or
/// has come back.
pub(crate) fn find(
    cx: &Task,
    (windows, xen, hyperv): (&[MmioWindow], Option<&Xen>, hyperv::Start),
    (config, pages): (queue::Config, Pages),
    report: &Report,
    mut first: impl FnMut(),
) -> Disks {
    let attention = Arc::new(Attention::new());
    let mut disks = Disks {
        list: Vec::new(),
        hosts: Vec::new(),
        vbds: None,
        vmbus: None,
        attention,
        made: Vec::new(),
        config,
        pages,
    };
    disks.vmbus = hyperv::connect(cx, hyperv, &disks.attention, report);
    let mut finder = Finder { cx, report, first: &mut first, disks: &mut disks };
    // First: some of its disks are on an IDE controller as well, and must have one driver.
    finder.vmbus();
    for function in pci::devices(cx) {
        finder.function(function);
    }
    for window in windows {
        finder.window(window);
    }
    finder.disks.vbds = xen.map(|xen| xen.vbds(cx, &finder.disks.attention, report));
    finder.vbds();
    disks
}

impl Disks {
    /// Lets go of all disks.
    pub(crate) fn leave(mut self, cx: &Task, report: &Report) {
        let vbds = self.vbds.take();
        drop(self);
        if let Some(vbds) = vbds {
            vbds.leave(cx, report);
        }
    }

    /// Takes a function into use that came later.
    pub(crate) fn function(&mut self, cx: &Task, function: pci::Function, report: &Report) {
        Finder { cx, report, first: &mut || (), disks: self }.function(function);
    }

    /// Takes controllers into use that came later on Hyper-V's bus.
    pub(crate) fn vmbus(&mut self, cx: &Task, report: &Report) {
        Finder { cx, report, first: &mut || (), disks: self }.vmbus();
    }

    /// Takes block devices into use that came later from other domains.
    pub(crate) fn vbds(&mut self, cx: &Task, report: &Report) {
        Finder { cx, report, first: &mut || (), disks: self }.vbds();
    }

    /// Looks at a host again: disks that came are taken into use.
    pub(crate) fn scan(&mut self, cx: &Task, bus: &Arc<Bus>, place: &str, report: &Report) {
        Finder { cx, report, first: &mut || (), disks: self }.scan(bus, place);
    }
}

struct Finder<'a> {
    cx: &'a Task,
    report: &'a Report,
    /// Told of each first command.
    first: &'a mut dyn FnMut(),
    disks: &'a mut Disks,
}

impl Finder<'_> {
    fn function(&mut self, function: pci::Function) {
        let (cx, report, place) = (self.cx, self.report, format!("pci {}", function.address));
        match probe_pci(cx, function) {
            Ok(Some(Found::Other(DeviceId::ENTROPY))) => {
                entropy::try_out(VirtioHal::pci_transport(cx, &function), &place, report);
            }
            Ok(Some(found)) => self.virtio(found),
            Ok(None) => self.not_virtio(function, &place),
            Err(error) => report.problem(&format_args!("{place}: {error}"), None),
        }
    }

    fn vmbus(&mut self) {
        let Some(vmbus) = &mut self.disks.vmbus else { return };
        for host in vmbus.controllers(self.cx, self.report) {
            self.host(host);
        }
    }

    fn not_virtio(&mut self, function: pci::Function, place: &str) {
        match undercroft_pvscsi::probe(self.cx, function) {
            Ok(Some(host)) => self.host(host),
            Ok(None) => self.ide(function, place),
            Err(error) => self.report.problem(&format_args!("{place}: {error}"), None),
        }
    }

    fn ide(&mut self, function: pci::Function, place: &str) {
        let taken = self.disks.vmbus.as_ref().map_or(&[][..], Vmbus::ide_disks);
        match undercroft_ata::probe_except(self.cx, function, taken) {
            Ok(Some(found)) => {
                for other in &found.others {
                    tell_skipped(&other.place, &other.model, self.report);
                }
                for (place, error) in &found.failures {
                    self.report.problem(&format_args!("{place}: {error}"), None);
                }
                for disk in found.disks {
                    (self.first)();
                    self.disk(disk, None);
                }
            }
            Ok(None) => {}
            Err(error) => self.report.problem(&format_args!("{place}: {error}"), None),
        }
    }

    fn vbds(&mut self) {
        let Some(vbds) = &mut self.disks.vbds else { return };
        for disk in vbds.come(self.cx, self.report) {
            (self.first)();
            self.disk(disk, None);
        }
    }

    fn window(&mut self, window: &MmioWindow) {
        let (cx, report, place) = (self.cx, self.report, format!("virtio-mmio {:#x}", window.base));
        match probe_mmio(cx, window.base, window.bytes, window.line) {
            Ok(Some(Found::Other(DeviceId::ENTROPY))) => {
                entropy::try_out(VirtioHal::mmio_transport(cx, window.base, window.bytes), &place, report);
            }
            Ok(Some(found)) => self.virtio(found),
            Ok(None) => {}
            Err(error) => report.problem(&format_args!("{place}: {error}"), None),
        }
    }

    fn virtio(&mut self, found: Found) {
        match found {
            // It has answered its first command.
            Found::Blk(disk) => {
                (self.first)();
                let cache = Some(Arc::clone(&disk));
                self.disk(disk, None);
                if let Some(last) = self.disks.list.last_mut() {
                    last.cache = cache;
                }
            }
            Found::Scsi(host) => self.host(host),
            _ => {}
        }
    }

    /// The disks behind a SCSI host, which is asked for them now.
    fn host(&mut self, host: Arc<dyn Host>) {
        (self.first)();
        let place = host.identity().controller.clone();
        let bus = Arc::new(Bus::new(host));
        bus.watch(Arc::clone(&self.disks.attention) as _);
        self.disks.hosts.push(KnownHost { bus: Arc::clone(&bus), place: place.clone(), seen: bus.changes() });
        self.scan(&bus, &place);
    }

    fn scan(&mut self, bus: &Arc<Bus>, place: &str) {
        match bus.scan(self.cx) {
            Ok(scan) => {
                for (address, error) in scan.others.iter().filter(|(_, error)| error.is_failure()) {
                    self.report.problem(&format_args!("{place} {address}: {error}"), None);
                }
                for disk in scan.disks {
                    self.disk(Arc::clone(&disk) as _, Some((Arc::clone(bus), disk)));
                }
            }
            Err(error) => self.report.problem(&format_args!("{place}: looking for disks failed: {error}"), None),
        }
    }

    fn disk(&mut self, device: Arc<dyn BlockDevice>, scsi: Option<(Arc<Bus>, Arc<ScsiDisk>)>) {
        let driver = device.identity().driver;
        let at = self.disks.made.iter().position(|(name, _)| *name == driver).unwrap_or_else(|| {
            self.disks.made.push((driver, 0));
            self.disks.made.len() - 1
        });
        let (_, count) = &mut self.disks.made[at];
        let name = format!("{driver}{count}");
        *count += 1;
        let queue = Arc::new(BlockQueue::new(device, self.disks.config));
        let news = Arc::new(News::new(Arc::clone(&self.disks.attention)));
        let background = queue.handle().map_or_else(|| Arc::clone(&queue), Arc::new);
        background.watch(Arc::clone(&news) as _);
        let device = Arc::clone(&queue) as Arc<dyn BlockDevice>;
        let volume = self.disks.pages.open(self.cx, &queue).map(Rc::new).inspect_err(|error| {
            self.report.text(format_args!("{name}: there is no cache before it: {error}"));
        });
        self.disks.list.push(Disk {
            name,
            device,
            cache: None,
            queue,
            volume: volume.ok(),
            background,
            news,
            scsi,
            load: RefCell::new(None),
            crew: RefCell::new(None),
        });
    }
}

/// Reports a packet device, a CD-ROM drive say, that was left alone.
fn tell_skipped(place: &str, model: &str, report: &Report) {
    if !report.is_json() {
        return report.text(format_args!("packet device at {place}: {model}, left alone"));
    }
    report.json(&Object {
        event: Some("device"),
        fields: &[
            ("driver", Value::Text(&"packet device")),
            ("controller", Value::Text(&place)),
            ("detail", Value::Text(&format_args!("{model}, left alone"))),
        ],
    });
}

/// What a disk can do, for people: its own features and its transport's.
struct Words<'a>(Features, &'a Identity);

impl core::fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let names = [
            (Features::VOLATILE_CACHE, "cache"),
            (Features::FUA, "fua"),
            (Features::DISCARD, "discard"),
            (Features::WRITE_ZEROES, "write-zeroes"),
        ];
        let mut first = true;
        for (_, name) in names.iter().filter(|(feature, _)| self.0.contains(*feature)) {
            let space = if core::mem::take(&mut first) { "" } else { " " };
            write!(f, "{space}{name}")?;
        }
        if !self.1.transport.is_empty() {
            let space = if first { "" } else { " " };
            write!(f, "{space}{}", self.1.transport)?;
        }
        Ok(())
    }
}

/// Reports a disk.
pub(crate) fn describe(cx: &Task, disk: &Disk, report: &Report) {
    let (identity, info) = (disk.device.identity(), disk.device.info());
    let features = Words(info.features, identity);
    let read_only = info.features.contains(Features::READ_ONLY);
    let parts = partitions::read(cx, disk, report);
    if !report.is_json() {
        let serial = if identity.serial.is_empty() { "-" } else { &identity.serial };
        report.text(format_args!(
            "{}: {} at {}, serial {serial}, {} MiB in {} blocks of {} bytes{}, {} queues, {} deep, {}, {features}",
            disk.name,
            identity.driver,
            identity.controller,
            info.bytes() >> 20,
            info.capacity,
            info.block_size,
            if read_only { ", read only" } else { "" },
            info.queues,
            info.depth,
            identity.interrupts,
        ));
        for part in &parts {
            report.text(format_args!("  {}", part.line()));
        }
        return;
    }
    let parts: Vec<&dyn core::fmt::Display> = parts.iter().map(|part| part as _).collect();
    report.json(&Object {
        event: Some("found"),
        fields: &[
            ("name", Value::Text(&disk.name)),
            ("serial", Value::Text(&identity.serial)),
            ("driver", Value::Text(&identity.driver)),
            ("controller", Value::Text(&identity.controller)),
            ("capacity_bytes", Value::Number(info.bytes())),
            ("block_size", Value::Number(u64::from(info.block_size))),
            ("physical_block_size", Value::Number(u64::from(info.physical_block_size))),
            ("queues", Value::Number(u64::from(info.queues))),
            ("queue_depth", Value::Number(u64::from(info.depth))),
            ("interrupts", Value::Text(&identity.interrupts)),
            ("features", Value::Words(&features)),
            ("read_only", Value::Bool(read_only)),
            ("partitions", Value::Objects(&parts)),
        ],
    });
}
