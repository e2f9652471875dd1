//! The modern PCI transport (virtio 1.2, 4.1). Task or bottom-half context.

use alloc::format;
use alloc::string::String;

use undercroft_hal::Task;
use undercroft_hal::irq::{IrqLine, MsiMessage};
use undercroft_hal::mmio::{Mmio, Register};
use undercroft_hal::pci::{Function, Msix};

use super::pci_caps::{self, Structures};
use super::{Cause, Doorbell, QueueAddresses, Transport};
use crate::ProbeError;
use crate::wire::pci::{MODERN, TRANSITIONAL, VENDOR, common};
use crate::wire::{DeviceId, NO_VECTOR, Status};

/// A virtio device behind PCI.
#[derive(Debug)]
pub struct PciTransport {
    function: Function,
    device: DeviceId,
    at: Structures,
    msix: Option<Msix>,
}

impl PciTransport {
    /// What virtio device a PCI function is, if it is one.
    pub fn identify(function: &Function) -> Option<DeviceId> {
        if function.vendor != VENDOR {
            None
        } else if MODERN.contains(&function.device) {
            Some(DeviceId(function.device - MODERN.start()))
        } else if TRANSITIONAL.contains(&function.device) {
            Some(DeviceId(function.subsystem().1))
        } else {
            None
        }
    }

    /// Takes the function over: maps its structures, turns on memory and bus mastering. Its state is as the firmware left it, until [`super::reset`].
    ///
    /// # Errors
    /// [`ProbeError`] when its structures are not usable.
    pub fn new(_cx: &Task, function: Function, device: DeviceId) -> Result<Self, ProbeError> {
        function.enable();
        let at = pci_caps::find(&function)?;
        // A table that cannot be mapped leaves the line: not a reason to give the device up.
        let msix = Msix::new(function).unwrap_or(None);
        Ok(Self { function, device, at, msix })
    }

    fn get<T: Register>(&self, offset: usize) -> T {
        self.at.common.read(offset)
    }

    fn set<T: Register>(&self, offset: usize, value: T) {
        self.at.common.write(offset, value);
    }

    fn select(&self, queue: u16) {
        self.set(common::QUEUE_SELECT, queue);
    }

    /// Addresses are written in halves: a device need not take 64-bit accesses (4.1.3.1).
    fn set_address(&self, offset: usize, addr: u64) {
        self.set(offset, addr as u32);
        self.set(offset + 4, (addr >> 32) as u32);
    }

    fn config<T: Register>(&self, offset: usize) -> T {
        self.at.device.as_ref().map_or(T::from_bus(u64::MAX), |config| config.read(offset))
    }

    fn set_config<T: Register>(&self, offset: usize, value: T) {
        if let Some(config) = &self.at.device {
            config.write(offset, value);
        }
    }
}

impl Transport for PciTransport {
    fn device(&self) -> DeviceId {
        self.device
    }

    fn place(&self) -> String {
        format!("pci {}", self.function.address)
    }

    fn line_name(&self) -> &'static str {
        "intx"
    }

    fn status(&self) -> Status {
        Status::from_bits_retain(self.get(common::STATUS))
    }

    fn set_status(&mut self, status: Status) {
        self.set(common::STATUS, status.bits());
    }

    fn device_features(&mut self) -> u64 {
        let half = |select: u32| {
            self.set(common::DEVICE_FEATURE_SELECT, select);
            u64::from(self.get::<u32>(common::DEVICE_FEATURE))
        };
        half(0) | half(1) << 32
    }

    fn set_driver_features(&mut self, features: u64) {
        for select in [0u32, 1] {
            self.set(common::DRIVER_FEATURE_SELECT, select);
            self.set(common::DRIVER_FEATURE, (features >> (32 * select)) as u32);
        }
    }

    fn config_generation(&self) -> u32 {
        u32::from(self.get::<u8>(common::GENERATION))
    }

    fn config_len(&self) -> usize {
        self.at.device.as_ref().map_or(0, Mmio::len)
    }

    fn config_u8(&self, offset: usize) -> u8 {
        self.config(offset)
    }

    fn config_u16(&self, offset: usize) -> u16 {
        self.config(offset)
    }

    fn config_u32(&self, offset: usize) -> u32 {
        self.config(offset)
    }

    fn set_config_u8(&mut self, offset: usize, value: u8) {
        self.set_config(offset, value);
    }

    fn set_config_u32(&mut self, offset: usize, value: u32) {
        self.set_config(offset, value);
    }

    fn queue_max_size(&mut self, queue: u16) -> u16 {
        if queue >= self.get::<u16>(common::NUM_QUEUES) {
            return 0;
        }
        self.select(queue);
        super::setup::floor_power_of_two(u32::from(self.get::<u16>(common::QUEUE_SIZE)))
    }

    fn doorbell(&mut self, queue: u16) -> Result<Doorbell, ProbeError> {
        self.select(queue);
        let offset = u64::from(self.get::<u16>(common::QUEUE_NOTIFY_OFF)) * u64::from(self.at.notify_multiplier);
        let register = usize::try_from(offset).ok().and_then(|offset| self.at.notify.sub(offset, 2));
        // An odd address would be written by no access at all.
        if offset % 2 != 0 {
            return Err(ProbeError::BadDoorbell(queue));
        }
        register.map(|register| Doorbell::new(register, queue)).ok_or(ProbeError::BadDoorbell(queue))
    }

    fn set_queue(&mut self, queue: u16, size: u16, addresses: QueueAddresses) -> Result<(), ProbeError> {
        self.select(queue);
        self.set(common::QUEUE_SIZE, size);
        self.set_address(common::QUEUE_DESC, addresses.descriptors);
        self.set_address(common::QUEUE_DRIVER, addresses.available);
        self.set_address(common::QUEUE_DEVICE, addresses.used);
        if self.get::<u16>(common::QUEUE_SIZE) == size { Ok(()) } else { Err(ProbeError::QueueRefused(queue)) }
    }

    fn enable_queue(&mut self, queue: u16) -> Result<(), ProbeError> {
        self.select(queue);
        self.set(common::QUEUE_ENABLE, 1u16);
        if self.get::<u16>(common::QUEUE_ENABLE) == 1 { Ok(()) } else { Err(ProbeError::QueueRefused(queue)) }
    }

    fn reset_queue(&mut self, queue: u16) -> Result<(), ProbeError> {
        if self.at.common.len() < common::QUEUE_RESET + 2 {
            return Err(ProbeError::QueueRefused(queue));
        }
        self.select(queue);
        self.set(common::QUEUE_RESET, 1u16);
        super::setup::await_queue_reset(queue, || self.get::<u16>(common::QUEUE_RESET) != 0)
    }

    fn vectors(&self) -> u16 {
        self.msix.as_ref().map_or(0, Msix::len)
    }

    fn set_vector(&mut self, vector: u16, message: MsiMessage) {
        if let Some(msix) = &self.msix {
            msix.set(vector, message);
        }
    }

    fn enable_vectors(&mut self, on: bool) {
        if let Some(msix) = &self.msix {
            if on {
                msix.enable();
            } else {
                msix.disable();
            }
        }
        self.function.mask_intx(on);
    }

    fn bind_config(&mut self, vector: Option<u16>) -> bool {
        let vector = vector.unwrap_or(NO_VECTOR);
        self.set(common::CONFIG_VECTOR, vector);
        self.get::<u16>(common::CONFIG_VECTOR) == vector
    }

    fn bind_queue(&mut self, queue: u16, vector: Option<u16>) -> bool {
        let vector = vector.unwrap_or(NO_VECTOR);
        self.select(queue);
        self.set(common::QUEUE_VECTOR, vector);
        self.get::<u16>(common::QUEUE_VECTOR) == vector
    }

    fn line(&self) -> Option<IrqLine> {
        self.function.line()
    }

    fn cause(&self) -> Cause {
        Cause::ReadToClear(self.at.isr)
    }

    fn isolate(&mut self) {
        self.function.disable_bus_master();
    }
}
