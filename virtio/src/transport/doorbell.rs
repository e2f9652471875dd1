//! [`Doorbell`]: tells the device that a queue has something new. Any context; no lock, one register access.

use undercroft_hal::mmio::{Mmio, Ports};

/// One queue's doorbell: its register's address, looked up once.
#[derive(Debug, Clone, Copy)]
pub struct Doorbell {
    register: Register,
    queue: u16,
}

#[derive(Debug, Clone, Copy)]
enum Register {
    /// Of 2 bytes (PCI) or 4 (MMIO): the length of the range.
    Mmio(Mmio),
    /// Of 2 bytes, the first of the range (legacy PCI).
    Port(Ports),
}

impl Doorbell {
    /// A doorbell of 2 bytes (PCI) or 4 (MMIO): the length of `register`.
    pub(crate) const fn new(register: Mmio, queue: u16) -> Self {
        Self { register: Register::Mmio(register), queue }
    }

    /// A doorbell of legacy PCI.
    pub(crate) const fn port(port: Ports, queue: u16) -> Self {
        Self { register: Register::Port(port), queue }
    }

    /// Rings it. What was published before is visible to the device when the write arrives.
    #[inline]
    pub fn ring(&self) {
        match &self.register {
            Register::Mmio(register) if register.len() == 2 => register.write(0, self.queue),
            Register::Mmio(register) => register.write(0, u32::from(self.queue)),
            Register::Port(port) => port.write(0, self.queue),
        }
    }
}
