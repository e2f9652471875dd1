//! The MMIO transport (virtio 1.2, 4.2): version 2 (Firecracker, QEMU's microvm when asked) and the legacy version 1 (microvm when not). Task or bottom-half context.

use alloc::format;
use alloc::string::String;

use undercroft_hal::Task;
use undercroft_hal::irq::{IrqLine, MsiMessage};
use undercroft_hal::mmio::Mmio;

use super::{Cause, Doorbell, QueueAddresses, Transport};
use crate::ProbeError;
use crate::wire::legacy::{PAGE, mmio as legacy};
use crate::wire::mmio as reg;
use crate::wire::{DeviceId, Status};

/// A virtio device in a window of registers.
#[derive(Debug)]
pub struct MmioTransport {
    window: Mmio,
    phys: u64,
    device: DeviceId,
    line: IrqLine,
    doorbell: Mmio,
    status: Mmio,
    ack: Mmio,
    legacy: bool,
}

impl MmioTransport {
    /// Looks at the window of `len` bytes at `phys`. `None` for an empty slot.
    ///
    /// # Errors
    /// [`ProbeError`] when there is no virtio device of version 1 or 2.
    pub fn new(_cx: &Task, phys: u64, len: usize, line: IrqLine) -> Result<Option<Self>, ProbeError> {
        let window = Mmio::map(phys, len)?;
        let part = |offset| window.sub(offset, 4).ok_or(ProbeError::BadConfig("register window"));
        let (doorbell, status, ack) =
            (part(reg::QUEUE_NOTIFY)?, part(reg::INTERRUPT_STATUS)?, part(reg::INTERRUPT_ACK)?);
        if len < reg::CONFIG || window.read::<u32>(reg::MAGIC_VALUE) != reg::MAGIC {
            return Err(ProbeError::BadConfig("magic"));
        }
        let device = window.read::<u32>(reg::DEVICE_ID);
        // An empty slot of either version says so by type 0 (4.2.3.1.1).
        if device == 0 {
            return Ok(None);
        }
        let legacy = match window.read::<u32>(reg::VERSION_NUMBER) {
            reg::VERSION => false,
            reg::VERSION_LEGACY => true,
            _ => return Err(ProbeError::BadConfig("version")),
        };
        let device = DeviceId(u16::try_from(device).map_err(|_| ProbeError::BadConfig("device type"))?);
        Ok(Some(Self { window, phys, device, line, doorbell, status, ack, legacy }))
    }

    fn get(&self, offset: usize) -> u32 {
        self.window.read(offset)
    }

    fn set(&self, offset: usize, value: u32) {
        self.window.write(offset, value);
    }

    fn set_address(&self, offset: usize, addr: u64) {
        self.set(offset, addr as u32);
        self.set(offset + 4, (addr >> 32) as u32);
    }

    fn select(&self, queue: u16) {
        self.set(reg::QUEUE_SEL, u32::from(queue));
    }
}

impl Transport for MmioTransport {
    fn device(&self) -> DeviceId {
        self.device
    }

    fn place(&self) -> String {
        format!("mmio {:#x}", self.phys)
    }

    fn line_name(&self) -> &'static str {
        "mmio"
    }

    fn is_legacy(&self) -> bool {
        self.legacy
    }

    fn status(&self) -> Status {
        Status::from_bits_retain(self.get(reg::STATUS) as u8)
    }

    fn set_status(&mut self, status: Status) {
        self.set(reg::STATUS, u32::from(status.bits()));
    }

    fn device_features(&mut self) -> u64 {
        let half = |select: u32| {
            self.set(reg::DEVICE_FEATURES_SEL, select);
            u64::from(self.get(reg::DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    fn set_driver_features(&mut self, features: u64) {
        for select in [0u32, 1] {
            self.set(reg::DRIVER_FEATURES_SEL, select);
            self.set(reg::DRIVER_FEATURES, (features >> (32 * select)) as u32);
        }
    }

    fn config_generation(&self) -> u32 {
        if self.legacy {
            return super::setup::generation_of_legacy(self);
        }
        self.get(reg::CONFIG_GENERATION)
    }

    fn config_len(&self) -> usize {
        self.window.len() - reg::CONFIG
    }

    fn config_u8(&self, offset: usize) -> u8 {
        self.window.read(reg::CONFIG.saturating_add(offset))
    }

    fn config_u16(&self, offset: usize) -> u16 {
        self.window.read(reg::CONFIG.saturating_add(offset))
    }

    fn config_u32(&self, offset: usize) -> u32 {
        self.window.read(reg::CONFIG.saturating_add(offset))
    }

    fn set_config_u8(&mut self, offset: usize, value: u8) {
        self.window.write(reg::CONFIG.saturating_add(offset), value);
    }

    fn set_config_u32(&mut self, offset: usize, value: u32) {
        self.window.write(reg::CONFIG.saturating_add(offset), value);
    }

    fn queue_max_size(&mut self, queue: u16) -> u16 {
        self.select(queue);
        super::setup::floor_power_of_two(self.get(reg::QUEUE_NUM_MAX))
    }

    fn doorbell(&mut self, queue: u16) -> Result<Doorbell, ProbeError> {
        Ok(Doorbell::new(self.doorbell, queue))
    }

    fn set_queue(&mut self, queue: u16, size: u16, addresses: QueueAddresses) -> Result<(), ProbeError> {
        self.select(queue);
        if self.legacy {
            if self.get(legacy::QUEUE_PFN) != 0 {
                return Err(ProbeError::QueueRefused(queue));
            }
            let page = addresses.descriptors / PAGE as u64;
            let page = u32::try_from(page).map_err(|_| ProbeError::QueueRefused(queue))?;
            self.set(legacy::GUEST_PAGE_SIZE, PAGE as u32);
            self.set(reg::QUEUE_NUM, u32::from(size));
            self.set(legacy::QUEUE_ALIGN, PAGE as u32);
            self.set(legacy::QUEUE_PFN, page);
            // That starts it, too.
            return if self.get(legacy::QUEUE_PFN) == page { Ok(()) } else { Err(ProbeError::QueueRefused(queue)) };
        }
        if self.get(reg::QUEUE_READY) != 0 {
            return Err(ProbeError::QueueRefused(queue));
        }
        self.set(reg::QUEUE_NUM, u32::from(size));
        self.set_address(reg::QUEUE_DESC, addresses.descriptors);
        self.set_address(reg::QUEUE_DRIVER, addresses.available);
        self.set_address(reg::QUEUE_DEVICE, addresses.used);
        Ok(())
    }

    fn enable_queue(&mut self, queue: u16) -> Result<(), ProbeError> {
        if self.legacy {
            return Ok(());
        }
        self.select(queue);
        self.set(reg::QUEUE_READY, 1);
        if self.get(reg::QUEUE_READY) == 1 { Ok(()) } else { Err(ProbeError::QueueRefused(queue)) }
    }

    fn reset_queue(&mut self, queue: u16) -> Result<(), ProbeError> {
        self.select(queue);
        self.set(reg::QUEUE_RESET, 1);
        super::setup::await_queue_reset(queue, || self.get(reg::QUEUE_RESET) != 0)
    }

    fn vectors(&self) -> u16 {
        0
    }

    fn set_vector(&mut self, _vector: u16, _message: MsiMessage) {}

    fn enable_vectors(&mut self, _on: bool) {}

    fn bind_config(&mut self, vector: Option<u16>) -> bool {
        vector.is_none()
    }

    fn bind_queue(&mut self, _queue: u16, vector: Option<u16>) -> bool {
        vector.is_none()
    }

    fn line(&self) -> Option<IrqLine> {
        Some(self.line)
    }

    fn cause(&self) -> Cause {
        Cause::WriteToClear { status: self.status, ack: self.ack }
    }

    // The platform knows no way to cut a window off; a device that ignores its reset keeps what it was given.
    fn isolate(&mut self) {}
}
