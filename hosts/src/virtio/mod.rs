//! virtio 1.2 from the device's side: status machine, feature negotiation, split rings, PCI and MMIO transports, and the devices.
//!
//! Source: Virtual I/O Device (VIRTIO) Version 1.2, OASIS, 1 July 2022. Section numbers in this module are its. Strict: whatever a driver
//! does against the specification is recorded as a [`Breach`], and breaks the device where it would break a real one. Honest, unless
//! [`Knobs`] or a [`FaultScript`] say otherwise.

mod blk;
mod breach;
mod consts;
mod device;
mod fault;
mod knobs;
mod mmio;
mod model;
mod packed;
mod pci;
mod queue;
mod registers;
mod request;
mod scsi;
mod work;

pub use blk::{Blk, BlkLimits};
pub use breach::Breach;
pub use consts::{feature, status};
pub use device::Virtio;
pub use fault::{Decision, Fault, FaultScript};
pub use knobs::{Knobs, Order};
pub use mmio::VirtioMmio;
pub use model::{Cancel, Model, Outcome};
pub use pci::VirtioPci;
pub use queue::{Buffer, Chain};
pub use request::Request;
pub use scsi::{Scsi, ScsiEvent, ScsiLimits};
