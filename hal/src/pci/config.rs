//! Configuration space access through the platform.

use core::fmt;

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use crate::platform::seam;

/// A function's place: segment, bus, device, function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Segment group (0 on most machines).
    pub segment: u16,
    /// Bus number.
    pub bus: u8,
    /// Device number, below 32.
    pub device: u8,
    /// Function number, below 8.
    pub function: u8,
}

impl Address {
    /// The enumeration's own form.
    pub fn device_function(self) -> DeviceFunction {
        DeviceFunction { bus: self.bus, device: self.device, function: self.function }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.segment, self.bus, self.device, self.function)
    }
}

/// `virtio-drivers`' view of one segment's configuration space.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment(pub(crate) u16);

impl Segment {
    fn address(self, at: DeviceFunction) -> Address {
        Address { segment: self.0, bus: at.bus, device: at.device, function: at.function }
    }
}

impl ConfigurationAccess for Segment {
    fn read_word(&self, at: DeviceFunction, offset: u8) -> u32 {
        seam::pci_read(self.address(at), u16::from(offset & !3))
    }

    fn write_word(&mut self, at: DeviceFunction, offset: u8, data: u32) {
        seam::pci_write(self.address(at), u16::from(offset & !3), data);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        *self
    }
}
