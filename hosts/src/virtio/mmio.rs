//! The MMIO transport, version 2 (virtio 1.2, 4.2), as microvm and Firecracker have it.

use std::ops::{Deref, DerefMut};

use undercroft_hal::mmio::Width;

use super::device::Signal;
use super::registers::Ring;
use super::{Breach, Model, Virtio};
use crate::{Bus, Device, Space};

const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
const VENDOR: u32 = 0x554d_4551;
const CONFIG: u64 = 0x100;

const INTERRUPT_QUEUE: u32 = 1;
const INTERRUPT_CONFIG: u32 = 2;

/// A virtio device behind a window of registers. Dereferences to the device.
#[derive(Debug)]
pub struct VirtioMmio<M> {
    virtio: Virtio<M>,
    queue_select: u16,
    feature_select: [u32; 2],
    interrupt_status: u32,
    edge: bool,
    /// Legacy: bytes of the driver's pages, and of the used ring's alignment.
    page: u32,
    align: u32,
}

impl<M> Deref for VirtioMmio<M> {
    type Target = Virtio<M>;

    fn deref(&self) -> &Virtio<M> {
        &self.virtio
    }
}

impl<M> DerefMut for VirtioMmio<M> {
    fn deref_mut(&mut self) -> &mut Virtio<M> {
        &mut self.virtio
    }
}

impl<M: Model> VirtioMmio<M> {
    /// Puts a device behind the transport, for a level-triggered line.
    pub fn new(virtio: Virtio<M>) -> Self {
        Self { virtio, queue_select: 0, feature_select: [0; 2], interrupt_status: 0, edge: false, page: 0, align: 0 }
    }

    /// Puts a device behind the transport, for an edge-triggered line: each interrupt makes an edge.
    pub fn new_edge(virtio: Virtio<M>) -> Self {
        Self { edge: true, ..Self::new(virtio) }
    }

    /// Puts a device behind the legacy transport, version 1 (4.2.4), for a level-triggered line.
    pub fn legacy(mut virtio: Virtio<M>) -> Self {
        virtio.legacy = true;
        Self::new(virtio)
    }

    /// Legacy: the driver says where the queue is, which starts it; 0 stops it.
    fn set_page(&mut self, page: u32) {
        let Some(queue) = self.virtio.queues.get(usize::from(self.queue_select)) else { return };
        let (size, number) = (u64::from(queue.size), queue.number);
        let (bytes, align) = (u64::from(self.page), u64::from(self.align));
        if !self.page.is_power_of_two() || !self.align.is_power_of_two() || page == 0 {
            self.virtio.breaches.push(Breach::RingAlignment(number));
            return;
        }
        // One piece: descriptors, available ring with its event, and after padding the used ring (2.7.2).
        let descriptors = u64::from(page) * bytes;
        let available = descriptors + 16 * size;
        let used = (available + 6 + 2 * size).next_multiple_of(align);
        let rings = [(Ring::Descriptors, descriptors), (Ring::Driver, available), (Ring::Device, used)];
        for (ring, at) in rings {
            self.virtio.set_ring(number, ring, false, at as u32);
            self.virtio.set_ring(number, ring, true, (at >> 32) as u32);
        }
        self.virtio.enable_queue(number, 1);
    }

    fn register(&mut self, offset: u64) -> u32 {
        let queue = self.virtio.queues.get(usize::from(self.queue_select)).cloned();
        match offset {
            0x000 => MAGIC,
            0x004 if self.virtio.legacy => 1,
            0x004 => VERSION,
            0x040 if self.virtio.legacy => queue
                .map_or(0, |queue| if queue.enabled { (queue.desc / u64::from(self.page.max(1))) as u32 } else { 0 }),
            0x008 => u32::from(self.virtio.model.device_id()),
            0x00c => VENDOR,
            0x010 => self.virtio.device_features(self.feature_select[0]),
            0x034 => queue.map_or(0, |queue| u32::from(queue.max)),
            0x044 => queue.map_or(0, |queue| u32::from(queue.enabled)),
            0x060 => self.interrupt_status,
            0x070 => {
                let status = self.virtio.read_status();
                if status == 0 {
                    self.interrupt_status = 0;
                }
                u32::from(status)
            }
            // No shared memory regions: a length of all ones.
            0x0b0..=0x0bc => u32::MAX,
            0x0c0 => u32::from(self.virtio.queue_reset_state(self.queue_select)),
            0x0fc => u32::from(self.virtio.generation),
            _ => 0,
        }
    }

    fn set_register(&mut self, offset: u64, value: u32) {
        let select = self.queue_select;
        match offset {
            0x014 => self.feature_select[0] = value,
            0x020 => self.virtio.write_driver_features(self.feature_select[1], value),
            0x024 => self.feature_select[1] = value,
            0x028 if self.virtio.legacy => self.page = value,
            0x03c if self.virtio.legacy => self.align = value,
            0x040 if self.virtio.legacy => self.set_page(value),
            0x044 | 0x080..=0x0a4 | 0x0c0 if self.virtio.legacy => {
                self.virtio.breaches.push(Breach::ReadOnlyRegister(offset));
            }
            0x030 => self.queue_select = value as u16,
            0x038 => self.virtio.set_queue_size(select, u16::try_from(value).unwrap_or(0)),
            0x044 => self.virtio.enable_queue(select, value as u16),
            0x050 => self.virtio.notify(None, value as u16),
            0x064 => self.interrupt_status &= !value,
            0x070 => {
                self.virtio.write_status(value as u8);
                if self.virtio.status == 0 {
                    self.interrupt_status = 0;
                }
            }
            0x080 | 0x084 => self.virtio.set_ring(select, Ring::Descriptors, offset & 4 != 0, value),
            0x090 | 0x094 => self.virtio.set_ring(select, Ring::Driver, offset & 4 != 0, value),
            0x0a0 | 0x0a4 => self.virtio.set_ring(select, Ring::Device, offset & 4 != 0, value),
            0x0ac => {}
            0x0c0 => self.virtio.reset_queue(select, value as u16),
            _ => self.virtio.breaches.push(Breach::ReadOnlyRegister(offset)),
        }
    }

    fn raise(&mut self, bus: &Bus<'_>) {
        let signals = std::mem::take(&mut self.virtio.signals);
        for signal in &signals {
            self.interrupt_status |= match signal {
                Signal::Queue(_) => INTERRUPT_QUEUE,
                Signal::Config => INTERRUPT_CONFIG,
            };
        }
        match (self.edge, signals.is_empty()) {
            (true, false) => bus.pulse_line(),
            (true, true) => {}
            (false, _) => bus.set_line(self.interrupt_status != 0),
        }
    }

    fn good_access(&mut self, offset: u64, width: Width) -> bool {
        let good = width == Width::U32 && offset.is_multiple_of(4);
        if !good {
            self.virtio.breaches.push(Breach::AccessWidth(offset));
        }
        good
    }
}

impl<M: Model> Device for VirtioMmio<M> {
    fn read(&mut self, _bus: &Bus<'_>, _space: Space, offset: u64, width: Width) -> u64 {
        if offset >= CONFIG {
            return self.virtio.read_device_config(offset - CONFIG, width.bytes());
        }
        if self.good_access(offset, width) { u64::from(self.register(offset)) } else { u64::MAX }
    }

    fn write(&mut self, bus: &Bus<'_>, _space: Space, offset: u64, width: Width, value: u64) {
        if offset >= CONFIG {
            self.virtio.write_device_config(offset - CONFIG, width.bytes(), value);
        } else if self.good_access(offset, width) {
            self.set_register(offset, value as u32);
        }
        self.raise(bus);
    }

    fn work(&mut self, bus: &Bus<'_>) -> bool {
        let progress = self.virtio.work(bus) | !self.virtio.signals.is_empty();
        self.raise(bus);
        progress
    }

    fn due(&self) -> Option<u64> {
        self.virtio.due()
    }

    fn diagnose(&self, bus: &Bus<'_>) -> String {
        self.virtio.diagnose(bus)
    }
}
