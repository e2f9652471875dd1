//! MSI: one interrupt message in configuration space (PCI 3.0, 6.8.1), for functions without MSI-X.

use super::function::Function;
use crate::irq::MsiMessage;

const ID: u8 = 0x05;
const ENABLE: u32 = 1 << 16;
/// Messages enabled, as a power of two: one.
const MULTIPLE: u32 = 0b111 << 20;
const WIDE: u32 = 1 << 23;
const MASKABLE: u32 = 1 << 24;

/// A function's MSI capability.
#[derive(Debug)]
pub struct Msi {
    function: Function,
    offset: u16,
    wide: bool,
}

impl Msi {
    /// Finds the function's capability, with MSI off. `None` if it has none.
    pub fn new(function: Function) -> Option<Self> {
        let capability = function.capabilities().find(|c| c.id == ID)?;
        let offset = u16::from(capability.offset);
        let msi = Self { function, offset, wide: function.read(offset) & WIDE != 0 };
        msi.disable();
        Some(msi)
    }

    /// Sets the message and turns MSI on; the wired interrupt is off from then on. `false`, with nothing changed, for a message that
    /// the function cannot send: data of more than 16 bits, or an address above 4 GiB from a function that has no room for one.
    pub fn enable(&self, message: MsiMessage) -> bool {
        let high = (message.addr >> 32) as u32;
        if message.data > u32::from(u16::MAX) || (high != 0 && !self.wide) {
            return false;
        }
        let control = self.function.read(self.offset);
        self.function.write(self.offset + 4, message.addr as u32);
        let data = if self.wide {
            self.function.write(self.offset + 8, high);
            self.offset + 12
        } else {
            self.offset + 8
        };
        // The upper half is reserved, or another register's.
        self.function.write(data, self.function.read(data) & 0xffff_0000 | message.data);
        if control & MASKABLE != 0 {
            self.function.write(data + 4, 0);
        }
        self.function.write(self.offset, control & !MULTIPLE | ENABLE);
        true
    }

    /// Turns MSI off.
    pub fn disable(&self) {
        self.function.write(self.offset, self.function.read(self.offset) & !ENABLE);
    }
}
