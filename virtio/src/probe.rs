//! From a place on a bus to a driver. Task context.

use alloc::boxed::Box;
use alloc::sync::Arc;

use undercroft_hal::Task;
use undercroft_hal::dma::DmaConstraints;
use undercroft_hal::irq::IrqLine;
use undercroft_hal::pci::Function;

use crate::ProbeError;
use crate::blk::VirtioBlk;
use crate::scsi::VirtioScsi;
use crate::transport::{LegacyPciTransport, MmioTransport, PciTransport, Transport};
use crate::wire::DeviceId;

/// A virtio device that was found.
#[derive(Debug)]
#[non_exhaustive]
pub enum Found {
    /// A block device, in use.
    Blk(Arc<VirtioBlk>),
    /// A SCSI host, in use. Its disks are found by [`undercroft_block::scsi`].
    Scsi(Arc<VirtioScsi>),
    /// A virtio device without a driver here; untouched.
    Other(DeviceId),
}

fn drive(cx: &Task, transport: Box<dyn Transport>, reach: DmaConstraints) -> Result<Found, ProbeError> {
    match transport.device() {
        DeviceId::BLOCK => Ok(Found::Blk(Arc::new(VirtioBlk::new(cx, transport, reach)?))),
        DeviceId::SCSI_HOST => Ok(Found::Scsi(Arc::new(VirtioScsi::new(cx, transport, reach)?))),
        other => Ok(Found::Other(other)),
    }
}

const fn is_ours(device: DeviceId) -> bool {
    matches!(device, DeviceId::BLOCK | DeviceId::SCSI_HOST)
}

/// Takes a PCI function into use. `None` if it is not a virtio device.
///
/// # Errors
/// [`ProbeError`]; the device is left reset.
pub fn probe_pci(cx: &Task, function: Function) -> Result<Option<Found>, ProbeError> {
    probe_pci_within(cx, function, DmaConstraints::ANY)
}

/// [`probe_pci`] for a device that reaches the memory within `reach` only: its rings lie there, and so must the data of its requests, which
/// [`undercroft_block::Bounce`] sees to.
///
/// # Errors
/// As [`probe_pci`].
pub fn probe_pci_within(cx: &Task, function: Function, reach: DmaConstraints) -> Result<Option<Found>, ProbeError> {
    match PciTransport::identify(&function) {
        None => Ok(None),
        Some(device) if !is_ours(device) => Ok(Some(Found::Other(device))),
        Some(device) => match PciTransport::new(cx, function, device) {
            Ok(transport) => drive(cx, Box::new(transport), reach).map(Some),
            // No structure of the modern interface at all.
            Err(ProbeError::Legacy) => {
                drive(cx, Box::new(LegacyPciTransport::new(cx, function, device)?), reach).map(Some)
            }
            Err(error) => Err(error),
        },
    }
}

/// Takes the device in a window of MMIO registers into use. `None` if the slot is empty.
///
/// # Errors
/// [`ProbeError`]; the device is left reset.
pub fn probe_mmio(cx: &Task, phys: u64, len: usize, line: IrqLine) -> Result<Option<Found>, ProbeError> {
    probe_mmio_within(cx, phys, len, line, DmaConstraints::ANY)
}

/// [`probe_mmio`] for a device that reaches the memory within `reach` only, see [`probe_pci_within`].
///
/// # Errors
/// As [`probe_mmio`].
pub fn probe_mmio_within(
    cx: &Task,
    phys: u64,
    len: usize,
    line: IrqLine,
    reach: DmaConstraints,
) -> Result<Option<Found>, ProbeError> {
    match MmioTransport::new(cx, phys, len, line)? {
        None => Ok(None),
        Some(transport) if !is_ours(transport.device()) => Ok(Some(Found::Other(transport.device()))),
        Some(transport) => drive(cx, Box::new(transport), reach).map(Some),
    }
}
