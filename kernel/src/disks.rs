//! Finding every disk of the machine. Task context.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use undercroft_block::queue::{self, BlockQueue};
use undercroft_block::scsi::{self, Host};
use undercroft_block::{BlockDevice, Features, Identity};
use undercroft_hal::irq::IrqLine;
use undercroft_hal::virtio_hal::VirtioHal;
use undercroft_hal::{Task, pci};
use undercroft_virtio::blk::VirtioBlk;
use undercroft_virtio::wire::DeviceId;
use undercroft_virtio::{Found, probe_mmio, probe_pci};

use crate::json::{Object, Value};
use crate::report::Report;
use crate::{entropy, partitions};

/// A disk in use.
pub struct Disk {
    /// Its driver and a running number.
    pub name: String,
    /// The device, behind its queue.
    pub device: Arc<dyn BlockDevice>,
    /// The queue.
    pub queue: Arc<BlockQueue>,
    /// The device below it again, if it is of the kind whose write cache can be switched.
    pub cache: Option<Arc<VirtioBlk>>,
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
pub fn find(
    cx: &Task,
    windows: &[MmioWindow],
    config: queue::Config,
    report: &Report,
    mut first: impl FnMut(),
) -> Vec<Disk> {
    let mut finder = Finder { cx, config, report, first: &mut first, disks: Vec::new() };
    for function in pci::devices(cx) {
        finder.function(function);
    }
    for window in windows {
        finder.window(window);
    }
    finder.disks
}

struct Finder<'a> {
    cx: &'a Task,
    /// How the disks' queues behave.
    config: queue::Config,
    report: &'a Report,
    /// Told of each first command.
    first: &'a mut dyn FnMut(),
    disks: Vec<Disk>,
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

    fn not_virtio(&mut self, function: pci::Function, place: &str) {
        match undercroft_pvscsi::probe(self.cx, function) {
            Ok(Some(host)) => self.host(host),
            Ok(None) => self.ide(function, place),
            Err(error) => self.report.problem(&format_args!("{place}: {error}"), None),
        }
    }

    fn ide(&mut self, function: pci::Function, place: &str) {
        match undercroft_ata::probe(self.cx, function) {
            Ok(Some(found)) => {
                for other in &found.others {
                    tell_skipped(&other.place, &other.model, self.report);
                }
                for (place, error) in &found.failures {
                    self.report.problem(&format_args!("{place}: {error}"), None);
                }
                for disk in found.disks {
                    (self.first)();
                    self.disk(disk);
                }
            }
            Ok(None) => {}
            Err(error) => self.report.problem(&format_args!("{place}: {error}"), None),
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
                self.disk(disk);
                if let Some(last) = self.disks.last_mut() {
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
        match scsi::scan(self.cx, host) {
            Ok(scan) => {
                for (address, error) in scan.others.iter().filter(|(_, error)| error.is_failure()) {
                    self.report.problem(&format_args!("{place} {address}: {error}"), None);
                }
                scan.disks.into_iter().for_each(|disk| self.disk(disk));
            }
            Err(error) => self.report.problem(&format_args!("{place}: looking for disks failed: {error}"), None),
        }
    }

    fn disk(&mut self, device: Arc<dyn BlockDevice>) {
        let driver = device.identity().driver;
        let number = self.disks.iter().filter(|disk| disk.device.identity().driver == driver).count();
        let queue = Arc::new(BlockQueue::new(device, self.config));
        let device = Arc::clone(&queue) as Arc<dyn BlockDevice>;
        self.disks.push(Disk { name: format!("{driver}{number}"), device, queue, cache: None });
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
