//! Finding every disk of the machine. Task context.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use undercroft_block::scsi::{self, Host};
use undercroft_block::{BlockDevice, Features, Identity};
use undercroft_hal::irq::IrqLine;
use undercroft_hal::virtio_hal::VirtioHal;
use undercroft_hal::{Task, pci};
use undercroft_virtio::wire::DeviceId;
use undercroft_virtio::{Found, probe_mmio, probe_pci};

use crate::json::{Object, Value};
use crate::report::Report;
use crate::{entropy, partitions};

/// A disk in use.
pub struct Disk {
    /// Its driver and a running number.
    pub name: String,
    /// The device.
    pub device: Arc<dyn BlockDevice>,
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
pub fn find(cx: &Task, windows: &[MmioWindow], report: &Report, mut first: impl FnMut()) -> Vec<Disk> {
    let mut disks = Vec::new();
    let mut keep = |found: Found| {
        // A disk has answered its first command, or a host of disks is asked for them next.
        if matches!(found, Found::Blk(_) | Found::Scsi(_)) {
            first();
        }
        for device in take(cx, found, report) {
            let driver = device.identity().driver;
            let number = disks.iter().filter(|disk: &&Disk| disk.device.identity().driver == driver).count();
            disks.push(Disk { name: format!("{driver}{number}"), device });
        }
    };
    for function in pci::devices(cx) {
        match probe_pci(cx, function) {
            Ok(Some(Found::Other(DeviceId::ENTROPY))) => {
                entropy::try_out(VirtioHal::pci_transport(cx, &function), &format!("pci {}", function.address), report);
            }
            Ok(Some(found)) => keep(found),
            Ok(None) => {}
            Err(error) => report.problem(&format_args!("pci {}: {error}", function.address), None),
        }
    }
    for window in windows {
        match probe_mmio(cx, window.base, window.bytes, window.line) {
            Ok(Some(Found::Other(DeviceId::ENTROPY))) => {
                let transport = VirtioHal::mmio_transport(cx, window.base, window.bytes);
                entropy::try_out(transport, &format!("virtio-mmio {:#x}", window.base), report);
            }
            Ok(Some(found)) => keep(found),
            Ok(None) => {}
            Err(error) => report.problem(&format_args!("virtio-mmio {:#x}: {error}", window.base), None),
        }
    }
    disks
}

/// The block devices of what was found.
fn take(cx: &Task, found: Found, report: &Report) -> Vec<Arc<dyn BlockDevice>> {
    match found {
        Found::Blk(blk) => Vec::from([blk as Arc<dyn BlockDevice>]),
        Found::Scsi(host) => {
            let place = host.identity().controller.clone();
            match scsi::scan(cx, host) {
                Ok(scan) => {
                    for (address, error) in &scan.others {
                        if error.is_failure() {
                            report.problem(&format_args!("{place} {address}: {error}"), None);
                        }
                    }
                    scan.disks.into_iter().map(|disk| disk as Arc<dyn BlockDevice>).collect()
                }
                Err(error) => {
                    report.problem(&format_args!("{place}: looking for disks failed: {error}"), None);
                    Vec::new()
                }
            }
        }
        _ => Vec::new(),
    }
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
