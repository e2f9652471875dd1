//! MSI: one message, in configuration space (PCI 3.0, 6.8.1).

use undercroft_hal::irq::MsiMessage;

use super::ConfigSpace;
use crate::Bus;

const ID: u8 = 0x05;
const ENABLE: u16 = 1 << 0;
const MULTIPLE: u16 = 0b111 << 4;
const WIDE: u16 = 1 << 7;

/// A function's MSI capability: one message, without masking.
#[derive(Debug, Clone)]
pub struct Msi {
    capability: usize,
    wide: bool,
}

impl Msi {
    /// Adds the capability to `config`, with 64 bits of address or 32.
    pub fn new(config: &mut ConfigSpace, wide: bool) -> Self {
        let mut body = if wide { WIDE } else { 0 }.to_le_bytes().to_vec();
        body.resize(if wide { 12 } else { 8 }, 0);
        let capability = config.add_capability(ID, &body);
        config.allow(capability + 2, &(ENABLE | MULTIPLE).to_le_bytes());
        config.allow(capability + 4, &(!3u32).to_le_bytes());
        if wide {
            config.allow(capability + 8, &[0xff; 4]);
        }
        config.allow(capability + if wide { 12 } else { 8 }, &[0xff; 2]);
        Self { capability, wide }
    }

    fn word(&self, config: &ConfigSpace, offset: usize) -> u32 {
        config.read((self.capability + offset) as u16)
    }

    /// Whether the guest has turned MSI on.
    pub fn enabled(&self, config: &ConfigSpace) -> bool {
        (self.word(config, 0) >> 16) as u16 & ENABLE != 0
    }

    /// Sends the message, if it is on and the function may master the bus.
    pub fn raise(&self, bus: &Bus<'_>, config: &ConfigSpace) {
        if !self.enabled(config) || !config.bus_master() {
            return;
        }
        let high = if self.wide { self.word(config, 8) } else { 0 };
        let data = self.word(config, if self.wide { 12 } else { 8 }) & 0xffff;
        bus.message(MsiMessage { addr: u64::from(high) << 32 | u64::from(self.word(config, 4)), data });
    }
}
