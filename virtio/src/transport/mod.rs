//! How a driver reaches its device: the control plane, and the handles that need none of it.
//!
//! Source: virtio 1.2, 3.1 (initialisation), 4.1 (PCI), 4.2 (MMIO). A [`Transport`] is exclusive (`&mut`) and slow: setup, reset,
//! configuration. What runs per request or per interrupt are `Copy` handles that are made once and share no lock: a [`Doorbell`] per
//! queue, a [`Cause`] for wired interrupts. Transports are made in task context and used in task or bottom-half context; the handles anywhere.

mod cause;
mod doorbell;
mod legacy_pci;
mod mmio;
mod pci;
mod pci_caps;
#[cfg(all(not(loom), test))]
mod pci_tests;
mod setup;

pub use cause::Cause;
pub use doorbell::Doorbell;
pub use legacy_pci::LegacyPciTransport;
pub use mmio::MmioTransport;
pub use pci::PciTransport;
pub(crate) use setup::{agree, negotiate_with as setup_with};
pub use setup::{negotiate, read_config, reset};

use alloc::string::String;

use undercroft_hal::irq::{IrqLine, MsiMessage};

use crate::ProbeError;
use crate::wire::{DeviceId, Status};

/// Where a queue's memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueAddresses {
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
}

impl From<[u64; 3]> for QueueAddresses {
    fn from([descriptors, available, used]: [u64; 3]) -> Self {
        Self { descriptors, available, used }
    }
}

/// The control plane of one device.
pub trait Transport: Send {
    /// What the device is.
    fn device(&self) -> DeviceId;
    /// Where it is, for people: `pci 0000:00:04.0`.
    fn place(&self) -> String;
    /// The name of its wired interrupt, for people: `intx`, `mmio`.
    fn line_name(&self) -> &'static str;

    /// Whether the device is driven by the legacy interface: no `FEATURES_OK`, 32 features, rings of a fixed size in one piece.
    fn is_legacy(&self) -> bool {
        false
    }

    /// The status field.
    fn status(&self) -> Status;
    /// Writes the status field; an empty one asks for a reset, see [`reset`].
    fn set_status(&mut self, status: Status);
    /// The features that the device offers.
    fn device_features(&mut self) -> u64;
    /// Chooses among them.
    fn set_driver_features(&mut self, features: u64);

    /// A number that changes when the configuration does.
    fn config_generation(&self) -> u32;
    /// Bytes of the configuration.
    fn config_len(&self) -> usize;
    /// Reads a byte of the configuration; all ones outside.
    fn config_u8(&self, offset: usize) -> u8;
    /// Reads 16 bits of the configuration.
    fn config_u16(&self, offset: usize) -> u16;
    /// Reads 32 bits of the configuration.
    fn config_u32(&self, offset: usize) -> u32;
    /// Writes 8 bits of the configuration.
    fn set_config_u8(&mut self, offset: usize, value: u8);
    /// Writes 32 bits of the configuration.
    fn set_config_u32(&mut self, offset: usize, value: u32);

    /// The most descriptors that a queue may have: a power of two, or 0 where there is no such queue.
    fn queue_max_size(&mut self, queue: u16) -> u16;
    /// The queue's doorbell.
    ///
    /// # Errors
    /// [`ProbeError::BadDoorbell`] when the device puts it where it cannot be.
    fn doorbell(&mut self, queue: u16) -> Result<Doorbell, ProbeError>;
    /// Gives the device a queue's memory and size, without starting it.
    ///
    /// # Errors
    /// [`ProbeError::QueueRefused`] when the device does not take the size.
    fn set_queue(&mut self, queue: u16, size: u16, addresses: QueueAddresses) -> Result<(), ProbeError>;
    /// Starts a queue.
    ///
    /// # Errors
    /// [`ProbeError::QueueRefused`] when it does not start.
    fn enable_queue(&mut self, queue: u16) -> Result<(), ProbeError>;

    /// Resets a queue and waits until the device has let go of its memory (2.6.1). Only with `RING_RESET` agreed on.
    ///
    /// # Errors
    /// [`ProbeError::QueueResetTimeout`]; [`ProbeError::QueueRefused`] where the transport has no such register.
    fn reset_queue(&mut self, queue: u16) -> Result<(), ProbeError>;

    /// How many interrupt messages the device can tell apart; 0 where it has a line only.
    fn vectors(&self) -> u16;
    /// Sets what vector number `vector` sends.
    fn set_vector(&mut self, vector: u16, message: MsiMessage);
    /// Turns messages on (and the line off), or off.
    fn enable_vectors(&mut self, on: bool);
    /// Binds configuration changes to a vector, or to none. `false` if the device refused it.
    fn bind_config(&mut self, vector: Option<u16>) -> bool;
    /// Binds a queue's interrupts to a vector, or to none. `false` if the device refused it.
    fn bind_queue(&mut self, queue: u16, vector: Option<u16>) -> bool;
    /// The device's interrupt line, if it has one.
    fn line(&self) -> Option<IrqLine>;
    /// Why the line was raised.
    fn cause(&self) -> Cause;

    /// Cuts the device off from memory where the bus can: for a device that does not finish its reset.
    fn isolate(&mut self);
}
