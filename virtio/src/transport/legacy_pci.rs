//! The legacy PCI transport (virtio 1.2, 4.1.4.10; virtio 0.9.5): registers in I/O ports. Task or bottom-half context.
//!
//! Multi-byte registers are in the byte order of the guest, which on every machine with I/O ports is little endian.

use alloc::format;
use alloc::string::String;

use undercroft_hal::Task;
use undercroft_hal::irq::{IrqLine, MsiMessage};
use undercroft_hal::mmio::{Ports, Register};
use undercroft_hal::pci::{Bar, Function, Msix};

use super::{Cause, Doorbell, QueueAddresses, Transport};
use crate::ProbeError;
use crate::wire::legacy::{PAGE, pci as reg};
use crate::wire::{DeviceId, NO_VECTOR, Status};

/// A legacy virtio device behind PCI.
#[derive(Debug)]
pub struct LegacyPciTransport {
    function: Function,
    device: DeviceId,
    base: u16,
    ports: Ports,
    msix: Option<Msix>,
    /// Messages are on, which moves the configuration.
    messages: bool,
}

impl LegacyPciTransport {
    /// Takes the function over: turns on ports and bus mastering. Its state is as the firmware left it, until [`super::reset`].
    ///
    /// # Errors
    /// [`ProbeError::Legacy`] when it has no ports to drive it by.
    pub fn new(_cx: &Task, function: Function, device: DeviceId) -> Result<Self, ProbeError> {
        function.enable();
        let Ok(Bar::Io { base, len }) = function.bar(0) else { return Err(ProbeError::Legacy) };
        if len < reg::CONFIG_WITH_MSIX {
            return Err(ProbeError::Legacy);
        }
        // A table that cannot be mapped leaves the line: not a reason to give the device up.
        let msix = Msix::new(function).unwrap_or(None);
        Ok(Self { function, device, base, ports: Ports::new(base, len), msix, messages: false })
    }

    fn part(&self, offset: u16, len: u16) -> Ports {
        Ports::new(self.base.saturating_add(offset), len)
    }

    fn select(&self, queue: u16) {
        self.ports.write(reg::QUEUE_SELECT, queue);
    }

    fn config_at(&self, offset: usize) -> u16 {
        let base = if self.messages { reg::CONFIG_WITH_MSIX } else { reg::CONFIG };
        u16::try_from(offset).map_or(u16::MAX, |offset| base.saturating_add(offset))
    }

    fn config<T: Register>(&self, offset: usize) -> T {
        self.ports.read(self.config_at(offset))
    }

    fn bind(&self, register: u16, vector: Option<u16>) -> bool {
        if !self.messages {
            // There are no such registers: what is at their place is the configuration.
            return vector.is_none();
        }
        let vector = vector.unwrap_or(NO_VECTOR);
        self.ports.write(register, vector);
        self.ports.read::<u16>(register) == vector
    }
}

impl Transport for LegacyPciTransport {
    fn device(&self) -> DeviceId {
        self.device
    }

    fn place(&self) -> String {
        format!("pci {}", self.function.address)
    }

    fn line_name(&self) -> &'static str {
        "intx"
    }

    fn is_legacy(&self) -> bool {
        true
    }

    fn status(&self) -> Status {
        Status::from_bits_retain(self.ports.read(reg::STATUS))
    }

    fn set_status(&mut self, status: Status) {
        self.ports.write(reg::STATUS, status.bits());
    }

    fn device_features(&mut self) -> u64 {
        u64::from(self.ports.read::<u32>(reg::DEVICE_FEATURES))
    }

    fn set_driver_features(&mut self, features: u64) {
        self.ports.write(reg::DRIVER_FEATURES, features as u32);
    }

    fn config_generation(&self) -> u32 {
        super::setup::generation_of_legacy(self)
    }

    fn config_len(&self) -> usize {
        usize::from(self.ports.len().saturating_sub(self.config_at(0)))
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
        self.ports.write(self.config_at(offset), value);
    }

    fn set_config_u32(&mut self, offset: usize, value: u32) {
        self.ports.write(self.config_at(offset), value);
    }

    fn queue_max_size(&mut self, queue: u16) -> u16 {
        self.select(queue);
        let size = self.ports.read::<u16>(reg::QUEUE_SIZE);
        // It cannot be chosen: a size that is no power of two is no queue.
        if size.is_power_of_two() && size <= crate::wire::ring::MAX_SIZE { size } else { 0 }
    }

    fn doorbell(&mut self, queue: u16) -> Result<Doorbell, ProbeError> {
        Ok(Doorbell::port(self.part(reg::QUEUE_NOTIFY, 2), queue))
    }

    fn set_queue(&mut self, queue: u16, size: u16, addresses: QueueAddresses) -> Result<(), ProbeError> {
        self.select(queue);
        let page = u32::try_from(addresses.descriptors / PAGE as u64).map_err(|_| ProbeError::QueueRefused(queue))?;
        if self.ports.read::<u16>(reg::QUEUE_SIZE) != size || self.ports.read::<u32>(reg::QUEUE_PFN) != 0 {
            return Err(ProbeError::QueueRefused(queue));
        }
        // That starts it, too.
        self.ports.write(reg::QUEUE_PFN, page);
        if self.ports.read::<u32>(reg::QUEUE_PFN) == page { Ok(()) } else { Err(ProbeError::QueueRefused(queue)) }
    }

    fn enable_queue(&mut self, _queue: u16) -> Result<(), ProbeError> {
        Ok(())
    }

    fn reset_queue(&mut self, queue: u16) -> Result<(), ProbeError> {
        Err(ProbeError::QueueRefused(queue))
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
            self.messages = on;
        }
        self.function.mask_intx(on);
    }

    fn bind_config(&mut self, vector: Option<u16>) -> bool {
        self.bind(reg::CONFIG_VECTOR, vector)
    }

    fn bind_queue(&mut self, queue: u16, vector: Option<u16>) -> bool {
        self.select(queue);
        self.bind(reg::QUEUE_VECTOR, vector)
    }

    fn line(&self) -> Option<IrqLine> {
        self.function.line()
    }

    fn cause(&self) -> Cause {
        Cause::PortToClear(self.part(reg::ISR, 1))
    }

    fn isolate(&mut self) {
        self.function.disable_bus_master();
    }
}
