//! The modern PCI transport (virtio 1.2, 4.1), laid out unlike what a driver might assume: the structures lie in a 64-bit BAR 4, MSI-X in
//! BAR 1, and the notify addresses run backwards.

use std::ops::{Deref, DerefMut};

use undercroft_hal::mmio::Width;

use super::consts::NO_VECTOR;
use super::device::Signal;
use super::registers::Ring;
use super::{Breach, Model, Virtio};
use crate::pci::{BarKind, ConfigSpace, Identity, Msix};
use crate::{Bus, Device, Space};

const VENDOR: u16 = 0x1af4;
const FIRST_DEVICE: u16 = 0x1040;
const VENDOR_CAPABILITY: u8 = 0x09;

const BAR: u8 = 4;
const MSIX_BAR: u8 = 1;
const COMMON: u64 = 0x0000;
const ISR: u64 = 0x1000;
const CONFIG: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const NOTIFY_LEN: u64 = 0x1000;
const BAR_LEN: u64 = 0x4000;
const COMMON_LEN: u64 = 64;
const NOTIFY_STEP: u64 = 4;

const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// A virtio device on PCI. Dereferences to the device.
#[derive(Debug)]
pub struct VirtioPci<M> {
    virtio: Virtio<M>,
    config: ConfigSpace,
    msix: Msix,
    isr: u8,
    config_vector: u16,
    queue_select: u16,
    feature_select: [u32; 2],
    /// Where the capability that gives access through configuration space is.
    window: u16,
}

impl<M> Deref for VirtioPci<M> {
    type Target = Virtio<M>;

    fn deref(&self) -> &Virtio<M> {
        &self.virtio
    }
}

impl<M> DerefMut for VirtioPci<M> {
    fn deref_mut(&mut self) -> &mut Virtio<M> {
        &mut self.virtio
    }
}

fn capability(kind: u8, offset: u64, len: u64, tail: Option<u32>) -> Vec<u8> {
    let total = if tail.is_some() { 20 } else { 16 };
    let mut body = vec![total, kind, BAR, 0, 0, 0];
    body.extend((offset as u32).to_le_bytes());
    body.extend((len as u32).to_le_bytes());
    body.extend(tail.into_iter().flat_map(u32::to_le_bytes));
    body
}

impl<M: Model> VirtioPci<M> {
    /// Puts a device behind the transport, with a vector for each queue and one for configuration changes.
    pub fn new(virtio: Virtio<M>) -> Self {
        let vectors = virtio.queues.len() as u16 + 1;
        Self::with_vectors(virtio, vectors)
    }

    /// As [`VirtioPci::new`], with an MSI-X table of `vectors` entries.
    ///
    /// # Panics
    /// If `vectors` is 0 or more than 2048.
    pub fn with_vectors(virtio: Virtio<M>, vectors: u16) -> Self {
        let device = FIRST_DEVICE + virtio.model.device_id();
        let class = virtio.model.class();
        let subsystem = (VENDOR, device);
        let mut config = ConfigSpace::new(Identity { vendor: VENDOR, device, revision: 1, class, subsystem });
        let msix = Msix::new(&mut config, MSIX_BAR, vectors);
        config.add_bar(BAR, BarKind::Memory64, BAR_LEN);
        let step = if virtio.knobs.shared_notify { 0 } else { NOTIFY_STEP as u32 };
        // The window comes first and the common structure last: a driver has to look at the types.
        let window = config.add_capability(VENDOR_CAPABILITY, &capability(5, 0, 0, Some(0))) as u16;
        config.allow(usize::from(window) + 4, &[0xff]);
        config.allow(usize::from(window) + 8, &[0xff; 8]);
        config.add_capability(VENDOR_CAPABILITY, &capability(4, CONFIG, 0x100, None));
        config.add_capability(VENDOR_CAPABILITY, &capability(3, ISR, 4, None));
        config.add_capability(VENDOR_CAPABILITY, &capability(2, NOTIFY, NOTIFY_LEN, Some(step)));
        config.add_capability(VENDOR_CAPABILITY, &capability(1, COMMON, COMMON_LEN, None));
        let (isr, feature_select) = (0, [0; 2]);
        Self { virtio, config, msix, isr, config_vector: NO_VECTOR, queue_select: 0, feature_select, window }
    }

    /// Where a queue's notify address is, in steps.
    fn notify_offset(&self, queue: u16) -> u16 {
        (self.virtio.queues.len() as u16).saturating_sub(1).saturating_sub(queue)
    }

    /// The width that a field of the common structure has to be accessed with, at its start.
    fn field_width(offset: u64) -> Option<Width> {
        Some(match offset {
            0x00 | 0x04 | 0x08 | 0x0c => Width::U32,
            0x20 | 0x24 | 0x28 | 0x2c | 0x30 | 0x34 => Width::U32,
            0x10 | 0x12 | 0x16 | 0x18 | 0x1a | 0x1c | 0x1e | 0x38 | 0x3a => Width::U16,
            0x14 | 0x15 => Width::U8,
            _ => return None,
        })
    }

    fn right_width(&mut self, offset: u64, width: Width) -> bool {
        let right = Self::field_width(offset) == Some(width);
        if !right {
            self.virtio.breaches.push(Breach::AccessWidth(offset));
        }
        right
    }

    fn read_common(&mut self, offset: u64, width: Width) -> u64 {
        if !self.right_width(offset, width) {
            return u64::MAX;
        }
        let select = self.queue_select;
        let queue = self.virtio.queues.get(usize::from(select)).cloned().unwrap_or_default();
        let half = |addr: u64| if offset & 4 == 0 { addr & 0xffff_ffff } else { addr >> 32 };
        match offset {
            0x00 => u64::from(self.feature_select[0]),
            0x04 => u64::from(self.virtio.device_features(self.feature_select[0])),
            0x08 => u64::from(self.feature_select[1]),
            0x0c => match self.feature_select[1] {
                0 => self.virtio.driver_features & 0xffff_ffff,
                1 => self.virtio.driver_features >> 32,
                _ => 0,
            },
            0x10 => u64::from(self.config_vector),
            0x12 => self.virtio.queues.len() as u64,
            0x14 => u64::from(self.read_status()),
            0x15 => u64::from(self.virtio.generation),
            0x16 => u64::from(select),
            0x18 => u64::from(queue.size),
            0x1a => u64::from(queue.vector),
            0x1c => u64::from(queue.enabled),
            0x1e => u64::from(self.notify_offset(select)),
            0x20 | 0x24 => half(queue.desc),
            0x28 | 0x2c => half(queue.avail),
            0x30 | 0x34 => half(queue.used),
            0x3a => u64::from(self.virtio.queue_reset_state(select)),
            _ => 0,
        }
    }

    fn read_status(&mut self) -> u8 {
        let status = self.virtio.read_status();
        if status == 0 {
            self.after_reset();
        }
        status
    }

    fn after_reset(&mut self) {
        self.isr = 0;
        self.config_vector = NO_VECTOR;
    }

    fn write_common(&mut self, offset: u64, width: Width, value: u64) {
        if !self.right_width(offset, width) {
            return;
        }
        let select = self.queue_select;
        let high = offset & 4 != 0;
        match offset {
            0x00 => self.feature_select[0] = value as u32,
            0x08 => self.feature_select[1] = value as u32,
            0x0c => self.virtio.write_driver_features(self.feature_select[1], value as u32),
            0x10 => self.config_vector = self.virtio.grant_vector(value as u16, self.msix.vectors()),
            0x14 => {
                self.virtio.write_status(value as u8);
                if self.virtio.status == 0 {
                    self.after_reset();
                }
            }
            0x16 => self.queue_select = value as u16,
            0x18 => self.virtio.set_queue_size(select, value as u16),
            0x1a => {
                let vector = self.virtio.grant_vector(value as u16, self.msix.vectors());
                if let Some(queue) = self.virtio.queues.get_mut(usize::from(select)) {
                    queue.vector = vector;
                }
            }
            0x1c => self.virtio.enable_queue(select, value as u16),
            0x20 | 0x24 => self.virtio.set_ring(select, Ring::Descriptors, high, value as u32),
            0x28 | 0x2c => self.virtio.set_ring(select, Ring::Driver, high, value as u32),
            0x30 | 0x34 => self.virtio.set_ring(select, Ring::Device, high, value as u32),
            0x3a => self.virtio.reset_queue(select, value as u16),
            _ => self.virtio.breaches.push(Breach::ReadOnlyRegister(offset)),
        }
    }

    /// Raises what the device signalled.
    fn raise(&mut self, bus: &Bus<'_>) {
        let msix = self.msix.enabled(&self.config);
        for signal in std::mem::take(&mut self.virtio.signals) {
            let (vector, isr) = match signal {
                Signal::Queue(number) => {
                    (self.virtio.queues.get(usize::from(number)).map_or(NO_VECTOR, |queue| queue.vector), ISR_QUEUE)
                }
                Signal::Config => (self.config_vector, ISR_CONFIG),
            };
            if !msix {
                self.isr |= isr;
            } else if vector != NO_VECTOR {
                self.msix.raise(bus, &self.config, vector);
            }
        }
        bus.set_line(!msix && self.isr != 0 && !self.config.intx_disabled());
    }

    fn notified(&mut self, offset: u64, value: u64) {
        if !self.config.bus_master() {
            self.virtio.breaches.push(Breach::NotBusMaster);
        }
        let last = self.virtio.queues.len().saturating_sub(1) as u64;
        let place = match (self.virtio.knobs.shared_notify, offset / NOTIFY_STEP) {
            (true, _) => None,
            // Beyond the last address: no queue's.
            (false, step) if step > last => Some(u16::MAX),
            (false, step) => Some((last - step) as u16),
        };
        self.virtio.notify(place, value as u16);
    }
}

impl<M: Model> Device for VirtioPci<M> {
    fn read(&mut self, bus: &Bus<'_>, space: Space, offset: u64, width: Width) -> u64 {
        let bytes = width.bytes() as u64;
        if space == Space::Bar(MSIX_BAR) {
            return u64::from(self.msix.read(offset));
        }
        match offset {
            COMMON..ISR => self.read_common(offset, width),
            ISR => {
                let isr = std::mem::take(&mut self.isr);
                self.raise(bus);
                u64::from(isr)
            }
            CONFIG..NOTIFY => {
                if width == Width::U64 || !offset.is_multiple_of(bytes) {
                    self.virtio.breaches.push(Breach::AccessWidth(offset));
                }
                self.virtio.read_device_config(offset - CONFIG, width.bytes())
            }
            _ => u64::MAX,
        }
    }

    fn write(&mut self, bus: &Bus<'_>, space: Space, offset: u64, width: Width, value: u64) {
        if space == Space::Bar(MSIX_BAR) {
            self.msix.write(bus, &self.config, offset, value as u32);
            return;
        }
        match offset {
            COMMON..ISR => self.write_common(offset, width, value),
            CONFIG..NOTIFY => self.virtio.write_device_config(offset - CONFIG, width.bytes(), value),
            NOTIFY.. => self.notified(offset - NOTIFY, value),
            _ => self.virtio.breaches.push(Breach::ReadOnlyRegister(offset)),
        }
        self.raise(bus);
    }

    fn work(&mut self, bus: &Bus<'_>) -> bool {
        // A device that may not master the bus can neither read a ring nor send a message.
        let progress = self.config.bus_master() && self.virtio.work(bus);
        let progress = progress | !self.virtio.signals.is_empty();
        self.raise(bus);
        progress
    }

    fn due(&self) -> Option<u64> {
        self.virtio.due()
    }

    fn config_read(&mut self, bus: &Bus<'_>, offset: u16) -> u32 {
        if offset == self.window + 16
            && let Some((bar, at, width)) = self.window_access()
        {
            return self.read(bus, Space::Bar(bar), at, width) as u32;
        }
        self.config.read(offset)
    }

    fn config_write(&mut self, bus: &Bus<'_>, offset: u16, value: u32) {
        if offset == self.window + 16
            && let Some((bar, at, width)) = self.window_access()
        {
            self.write(bus, Space::Bar(bar), at, width, u64::from(value));
            return;
        }
        self.config.write(offset, value);
        self.msix.send_pending(bus, &self.config);
        self.raise(bus);
    }

    fn bar_at(&self, addr: u64) -> Option<(u8, u64)> {
        self.config.bar_at(addr)
    }

    fn assign_bars(&mut self, next: u64) -> u64 {
        self.config.assign_bars(next)
    }

    fn diagnose(&self, bus: &Bus<'_>) -> String {
        self.virtio.diagnose(bus)
    }
}

impl<M: Model> VirtioPci<M> {
    /// What the configuration-space window points at (4.1.4.9).
    fn window_access(&self) -> Option<(u8, u64, Width)> {
        let bar = self.config.read(self.window + 4) as u8;
        let at = u64::from(self.config.read(self.window + 8));
        let width = match self.config.read(self.window + 12) {
            1 => Width::U8,
            2 => Width::U16,
            4 => Width::U32,
            _ => return None,
        };
        (bar == BAR || bar == MSIX_BAR).then_some((bar, at, width))
    }
}
