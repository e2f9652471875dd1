//! [`Doorbell`]: tells the device that a queue has something new. Any context; no lock, one register access.

use undercroft_hal::mmio::Mmio;

/// One queue's doorbell: its register's address, looked up once.
#[derive(Debug, Clone, Copy)]
pub struct Doorbell {
    register: Mmio,
    queue: u16,
}

impl Doorbell {
    /// A doorbell of 2 bytes (PCI) or 4 (MMIO): the length of `register`.
    pub(crate) const fn new(register: Mmio, queue: u16) -> Self {
        Self { register, queue }
    }

    /// Rings it. What was published before is visible to the device when the write arrives.
    #[inline]
    pub fn ring(&self) {
        if self.register.len() == 2 {
            self.register.write(0, self.queue);
        } else {
            self.register.write(0, u32::from(self.queue));
        }
    }
}
