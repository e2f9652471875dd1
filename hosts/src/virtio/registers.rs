//! The registers that both transports have in common: features, queues, notifications, configuration.

use super::consts::{NO_VECTOR, feature, status};
use super::{Breach, Model, Virtio};

/// Which address of a queue a register sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ring {
    Descriptors,
    Driver,
    Device,
}

impl<M: Model> Virtio<M> {
    pub(super) fn device_features(&self, select: u32) -> u32 {
        match select {
            0 => self.offered() as u32,
            1 => (self.offered() >> 32) as u32,
            _ => 0,
        }
    }

    pub(super) fn write_driver_features(&mut self, select: u32, value: u32) {
        self.configures();
        if self.status & status::FEATURES_OK != 0 {
            self.breaches.push(Breach::FeaturesAfterOk);
            return;
        }
        let value = u64::from(value);
        match select {
            0 => self.driver_features = self.driver_features & !0xffff_ffff | value,
            1 => self.driver_features = self.driver_features & 0xffff_ffff | value << 32,
            _ if value != 0 => self.breaches.push(Breach::FeaturesNotOffered(value)),
            _ => {}
        }
    }

    /// A queue that the driver is about to configure.
    fn configured(&mut self, number: u16) -> Option<&mut super::queue::Queue> {
        self.configures();
        let bad = !self.legacy && self.status & status::FEATURES_OK == 0;
        let queue = self.queues.get_mut(usize::from(number))?;
        if bad || queue.enabled {
            self.breaches.push(Breach::QueueConfigOrder(number));
        }
        Some(queue)
    }

    pub(super) fn set_queue_size(&mut self, number: u16, size: u16) {
        if let Some(queue) = self.configured(number) {
            queue.size = size;
            if size == 0 || !size.is_power_of_two() || size > queue.max {
                self.breaches.push(Breach::QueueSize(number, size));
            }
        }
    }

    pub(super) fn set_ring(&mut self, number: u16, ring: Ring, high: bool, value: u32) {
        let Some(queue) = self.configured(number) else { return };
        let addr = match ring {
            Ring::Descriptors => &mut queue.desc,
            Ring::Driver => &mut queue.avail,
            Ring::Device => &mut queue.used,
        };
        let value = u64::from(value);
        *addr = if high { *addr & 0xffff_ffff | value << 32 } else { *addr & !0xffff_ffff | value };
    }

    pub(super) fn enable_queue(&mut self, number: u16, value: u16) {
        if value != 1 {
            self.breaches.push(Breach::QueueEnableValue(number));
            return;
        }
        if self.queue_resetting.get(usize::from(number)).copied().flatten().is_some() {
            self.breaches.push(Breach::QueueResetNotAwaited(number));
        }
        let negotiated = self.negotiated();
        if let Some(queue) = self.configured(number)
            && let Err(breach) = queue.enable(negotiated)
        {
            self.broken(breach);
        }
    }

    /// The driver resets one queue (2.6.1).
    pub(super) fn reset_queue(&mut self, number: u16, value: u16) {
        let index = usize::from(number);
        if value != 1 || index >= self.queues.len() || self.features() & feature::RING_RESET == 0 {
            self.breaches.push(Breach::QueueEnableValue(number));
            return;
        }
        self.queue_resetting[index] = Some(self.knobs.queue_reset_reads);
        if self.knobs.queue_reset_reads == 0 {
            self.reset_queue_now(index);
        }
    }

    fn reset_queue_now(&mut self, index: usize) {
        let queue = &mut self.queues[index];
        // Everything goes back to its default, the vector included.
        *queue = super::queue::Queue::new(queue.number, queue.max);
        if !self.knobs.queue_reset_goes_on {
            self.taken.retain(|taken| usize::from(taken.queue) != index);
        }
        self.kept[index].clear();
    }

    /// The driver reads queue_reset: 1 while it is going on.
    pub(super) fn queue_reset_state(&mut self, number: u16) -> u16 {
        let index = usize::from(number);
        match self.queue_resetting.get(index).copied().flatten() {
            None => 0,
            Some(0) => {
                self.queue_resetting[index] = None;
                if self.knobs.queue_reset_reads > 0 {
                    self.reset_queue_now(index);
                }
                0
            }
            Some(left) => {
                self.queue_resetting[index] = Some(left - 1);
                1
            }
        }
    }

    /// Whether a vector may be assigned, as read back (4.1.4.3): `table` is the size of the MSI-X table.
    pub(super) fn grant_vector(&mut self, vector: u16, table: usize) -> u16 {
        if vector == NO_VECTOR {
            return NO_VECTOR;
        }
        if usize::from(vector) >= table {
            self.breaches.push(Breach::VectorOutOfRange(vector));
            return NO_VECTOR;
        }
        if self.knobs.vectors.is_some_and(|limit| self.vectors_granted >= limit) {
            return NO_VECTOR;
        }
        self.vectors_granted += 1;
        vector
    }

    /// The driver notifies queue `value`, at the address of queue `place` if queues have addresses of their own.
    pub(super) fn notify(&mut self, place: Option<u16>, value: u16) {
        self.notifications += 1;
        if let Some(place) = place.filter(|place| *place != value) {
            self.breaches.push(Breach::NotifyWrongQueue(place, value));
        }
        if self.status & status::DRIVER_OK == 0 {
            self.breaches.push(Breach::NotifyBeforeDriverOk(value));
            return;
        }
        match self.queues.get_mut(usize::from(value)) {
            Some(queue) if queue.enabled => queue.active = true,
            _ => self.breaches.push(Breach::NotifyNoQueue(value)),
        }
    }

    pub(super) fn read_device_config(&mut self, offset: u64, len: usize) -> u64 {
        let config = self.model.config();
        let byte = |at: usize| u64::from(config.get(at).copied().unwrap_or(0));
        let value = (0..len).fold(0, |value, at| value | byte(offset as usize + at) << (8 * at));
        if let Some((left, change)) = &mut self.tear
            && *left > 0
        {
            *left -= 1;
            change(&mut self.model);
            self.generation = self.generation.wrapping_add(1);
        }
        value
    }

    pub(super) fn write_device_config(&mut self, offset: u64, len: usize, value: u64) {
        self.configures();
        let bytes = value.to_le_bytes();
        if let Err(breach) = self.model.write_config(offset as usize, &bytes[..len]) {
            self.breaches.push(breach);
        }
    }
}
