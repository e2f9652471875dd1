//! From a PCI function to disks. Task context.
//!
//! Source: PCI IDE Controller Specification 1.0; ATA 9.1 to 9.12 for who answers after a reset. Firmware has set the transfer modes and their
//! timing; the driver leaves them as they are, and sets one only where a drive has none at all.

mod polled;

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use undercroft_block::{Features, Identity, Info, Limits};
use undercroft_hal::Task;
use undercroft_hal::dma::DmaConstraints;
use undercroft_hal::irq::{self, Handled, IrqError, IrqLine};
use undercroft_hal::mmio::Ports;
use undercroft_hal::pci::{Function, PciError};

use crate::channel::{Channel, DEPTH, Drive, MOST_TRIM, Memory, SEGMENTS};
use crate::defect::Defects;
use crate::disk::AtaDisk;
use crate::error::ProbeError;
use crate::identify::{Identified, packet_model};
use crate::registers::Registers;
use crate::wire::{LEGACY, block, class, master, piix};
use polled::{Polled, Present};

/// The driver's own limit of one request: drives have none, as a request may take several commands.
const MOST_TRANSFER: u32 = 8 << 20;

/// What is on the channels of a controller.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Found {
    /// Disks, in use, in the order of their places.
    pub disks: Vec<Arc<AtaDisk>>,
    /// What is there and not for this driver; nothing is sent to it any more.
    pub others: Vec<Other>,
    /// Drives and channels that could not be used.
    pub failures: Vec<(String, ProbeError)>,
}

/// A packet device, a CD-ROM, say; or a disk that somebody else has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// Where it is.
    pub place: String,
    /// What it calls itself; empty if it would not say.
    pub model: String,
}

/// The function that both channels belong to; the last to go ends its bus mastering.
struct Keeper(Function);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.disable_bus_master();
    }
}

/// Takes a PCI function into use. `None` if it is no IDE controller.
///
/// # Errors
/// [`ProbeError`], if nothing can be done with the controller. What is wrong with one channel or drive is in [`Found::failures`].
pub fn probe(cx: &Task, function: Function) -> Result<Option<Found>, ProbeError> {
    probe_except(cx, function, &[])
}

/// As [`probe`], but for these disks, by channel and number there: somebody else has them, by another way that the machine offers (Hyper-V's
/// storage channels). They are among [`Found::others`].
///
/// # Errors
/// As [`probe`].
pub fn probe_except(cx: &Task, function: Function, taken: &[(u8, u8)]) -> Result<Option<Found>, ProbeError> {
    probe_with(cx, function, taken, Defects::default())
}

pub(crate) fn probe_with(
    cx: &Task,
    function: Function,
    taken: &[(u8, u8)],
    defects: Defects,
) -> Result<Option<Found>, ProbeError> {
    let (base, sub, interface) = function.class;
    if (base, sub) != class::IDE {
        return Ok(None);
    }
    function.enable();
    let keeper = Arc::new(Keeper(function));
    let mut found = Found::default();
    for channel in 0..2u8 {
        if !decodes(&function, channel) {
            continue;
        }
        let native = class::native(interface, channel);
        let name = if channel == 0 { "primary" } else { "secondary" };
        let place = format!("pci {} {name}", function.address);
        let ports = match ports(&function, channel, native) {
            Ok(ports) => ports,
            Err(error) => {
                found.failures.push((place, error.into()));
                continue;
            }
        };
        let site = Site { function, keeper: &keeper, channel, native, place, taken, defects };
        take_channel(cx, &site, ports, &mut found);
    }
    Ok(Some(found))
}

/// Whether a PIIX's channel has its ports; of other controllers that is not known, and assumed.
fn decodes(function: &Function, channel: u8) -> bool {
    let known = function.vendor == piix::VENDOR && piix::DEVICES.contains(&function.device);
    !known || function.read_u16(piix::TIMING + 2 * u16::from(channel)) & piix::DECODE != 0
}

fn ports(function: &Function, channel: u8, native: bool) -> Result<Registers, PciError> {
    let part = |whole: Ports, offset: u16, len: u16, base: u16| {
        if whole.len() < offset + len { Err(PciError::BadBar) } else { Ok(Ports::new(base + offset, len)) }
    };
    let bar = |index: u8, offset: u16, len: u16| match function.bar(index)? {
        undercroft_hal::pci::Bar::Io { base, len: has } => part(Ports::new(base, has), offset, len, base),
        undercroft_hal::pci::Bar::Memory { .. } => Err(PciError::NoBar),
    };
    let (command, control) = if native {
        // The control register is the third byte of its block.
        (bar(2 * channel, 0, block::LEN)?, bar(2 * channel + 1, 2, 1)?)
    } else {
        let (command, control, _) = LEGACY[usize::from(channel)];
        (Ports::new(command, block::LEN), Ports::new(control, 1))
    };
    let masters = function.class.2 & class::BUS_MASTER != 0;
    // Without its ports there is no bus master, and the CPU moves the data.
    let master = if masters { bar(4, u16::from(channel) * master::LEN, master::LEN).ok() } else { None };
    Ok(Registers::new(command, control, master))
}

/// A channel's place.
struct Site<'a> {
    function: Function,
    keeper: &'a Arc<Keeper>,
    channel: u8,
    native: bool,
    place: String,
    taken: &'a [(u8, u8)],
    defects: Defects,
}

fn take_channel(cx: &Task, site: &Site<'_>, registers: Registers, found: &mut Found) {
    let polled = Polled::new(cx, registers, site.defects);
    let drives = match polled.reset() {
        Ok(drives) => drives,
        Err(error) => return found.failures.push((site.place.clone(), error)),
    };
    let mut identities = [None, None];
    let mut disks = [None, None];
    for (drive, present) in drives.into_iter().enumerate() {
        let place = format!("{} device {drive}", site.place);
        match present {
            Present::Nobody => {}
            Present::Disk if site.taken.contains(&(site.channel, drive as u8)) => {
                found.others.push(Other { place, model: "a disk that has another driver".into() });
            }
            Present::Packet => {
                let model = polled.identify_packet(drive).map(|words| packet_model(&words)).unwrap_or_default();
                found.others.push(Other { place, model });
            }
            Present::Disk => match identify(&polled, drive) {
                Ok(identified) => {
                    identities[drive] = Some((place, identified.clone()));
                    disks[drive] = Some(identified);
                }
                Err(error) => found.failures.push((place, error)),
            },
        }
    }
    if disks.iter().all(Option::is_none) {
        return;
    }
    match start(cx, site, registers, disks) {
        Ok(channel) => {
            for (drive, (place, identified)) in identities.into_iter().enumerate().filter_map(|(n, d)| Some((n, d?))) {
                let identity = identity(site, &channel, drive, place, identified);
                found.disks.push(Arc::new(AtaDisk::new(Arc::clone(&channel), drive, identity)));
            }
        }
        Err(error) => found.failures.push((site.place.clone(), error)),
    }
}

/// Asks a drive what it is, and sets it up.
fn identify(polled: &Polled<'_>, drive: usize) -> Result<Identified, ProbeError> {
    let mut identified = polled.identified(drive)?;
    polled.set_up(drive, &mut identified)?;
    Ok(identified)
}

fn start(
    cx: &Task,
    site: &Site<'_>,
    registers: Registers,
    disks: [Option<Identified>; 2],
) -> Result<Arc<Channel>, ProbeError> {
    // Without memory for tables, the CPU moves the data.
    let wants = registers.has_master() && disks.iter().flatten().any(|disk| disk.dma);
    let memory = if wants { Memory::new().ok() } else { None };
    let dma = memory.is_some();
    let drives = disks.map(|disk| disk.map(|disk| Drive::new(info(&disk, dma), disk)));
    let keeper: Arc<dyn Send + Sync> = site.keeper.clone();
    let channel = Channel::new(registers, drives, memory, keeper, site.defects);
    let line = line(site).ok_or(ProbeError::NoInterrupt(IrqError::NoLine))?;
    let (signals, work) = channel.wiring();
    let handler = irq::line(cx, line, move |_| {
        let handled = signals.arrived();
        if handled == Handled::Yes {
            work.schedule();
        }
        handled
    });
    channel.connect(handler.map_err(ProbeError::NoInterrupt)?);
    Ok(channel)
}

/// The channel's interrupt: of its own and edge-triggered at its traditional place, else the function's.
fn line(site: &Site<'_>) -> Option<IrqLine> {
    if site.native {
        return site.function.line();
    }
    let (.., number) = LEGACY[usize::from(site.channel)];
    Some(IrqLine { number, level: false, low: false })
}

fn info(disk: &Identified, dma: bool) -> Info {
    let dma = dma && disk.dma;
    let mut features = Features::empty();
    features.set(Features::VOLATILE_CACHE, disk.cached);
    features.set(Features::FUA, disk.fua && dma);
    features.set(Features::DISCARD, disk.trim && dma);
    Info {
        capacity: disk.sectors,
        block_size: disk.sector_bytes,
        physical_block_size: disk.sector_bytes << disk.physical_exponent,
        queues: 1,
        depth: u32::from(DEPTH),
        features,
        limits: Limits {
            max_segments: SEGMENTS,
            max_segment_bytes: MOST_TRANSFER,
            joint: 0,
            max_transfer_bytes: MOST_TRANSFER,
            max_discard_blocks: if disk.trim && dma { MOST_TRIM } else { 0 },
            max_write_zeroes_blocks: 0,
            // Where data may lie without being copied.
            dma: if dma { DmaConstraints::BELOW_4G } else { DmaConstraints::ANY },
        },
    }
}

fn identity(site: &Site<'_>, channel: &Channel, drive: usize, place: String, disk: Identified) -> Identity {
    let dma = channel.info(drive).is_some_and(|info| info.limits.dma == DmaConstraints::BELOW_4G);
    let interrupts = match line(site) {
        Some(line) if !site.native => format!("irq:{}", line.number),
        _ => String::from("intx"),
    };
    let transport = format!("{} {}", if dma { "dma" } else { "pio" }, if disk.ext { "lba48" } else { "lba28" });
    Identity { driver: "ata", controller: place, serial: disk.serial, model: disk.model, interrupts, transport }
}
