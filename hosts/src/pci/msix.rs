//! MSI-X: the table, the pending bits, the masks (PCI 3.0, 6.8.2).

use undercroft_hal::irq::MsiMessage;

use super::ConfigSpace;
use crate::Bus;

const ID: u8 = 0x11;
const ENABLE: u16 = 1 << 15;
const MASK_ALL: u16 = 1 << 14;
const MASKED: u32 = 1;

/// A function's MSI-X table, in a BAR of its own with the pending bits behind it.
#[derive(Debug, Clone)]
pub struct Msix {
    table: Vec<[u32; 4]>,
    pending: Vec<bool>,
    capability: usize,
    bar: u8,
    /// Where the table is in the BAR, and the pending bits behind its start.
    start: u64,
    pba: u64,
}

impl Msix {
    /// Adds the capability and BAR `bar` (32-bit) for `vectors` vectors to `config`.
    ///
    /// # Panics
    /// If there are no vectors, or more than 2048.
    pub fn new(config: &mut ConfigSpace, bar: u8, vectors: u16) -> Self {
        assert!((1..=2048).contains(&vectors), "MSI-X has 1 to 2048 vectors");
        let pba = (u64::from(vectors) * 16).next_multiple_of(2048);
        config.add_bar(bar, super::BarKind::Memory32, (pba + 256).next_power_of_two().max(4096));
        Self::inside(config, bar, 0, pba, vectors)
    }

    /// Adds the capability for a table at `start` of a BAR that is there already, its pending bits `pba` behind.
    ///
    /// # Panics
    /// As [`Msix::new`].
    pub fn inside(config: &mut ConfigSpace, bar: u8, start: u64, pba: u64, vectors: u16) -> Self {
        assert!((1..=2048).contains(&vectors), "MSI-X has 1 to 2048 vectors");
        let mut body = Vec::new();
        body.extend((vectors - 1).to_le_bytes());
        body.extend((start as u32 | u32::from(bar)).to_le_bytes());
        body.extend(((start + pba) as u32 | u32::from(bar)).to_le_bytes());
        let capability = config.add_capability(ID, &body);
        config.allow(capability + 2, &(ENABLE | MASK_ALL).to_le_bytes());
        let count = usize::from(vectors);
        Self { table: vec![[0, 0, 0, MASKED]; count], pending: vec![false; count], capability, bar, start, pba }
    }

    /// The BAR that the table is in.
    pub fn bar(&self) -> u8 {
        self.bar
    }

    /// Vectors in the table.
    pub fn vectors(&self) -> usize {
        self.table.len()
    }

    fn control(&self, config: &ConfigSpace) -> u16 {
        (config.read(self.capability as u16) >> 16) as u16
    }

    /// Whether the guest has turned MSI-X on.
    pub fn enabled(&self, config: &ConfigSpace) -> bool {
        self.control(config) & ENABLE != 0
    }

    /// Raises a vector: sends its message, or notes it as pending while it is masked. Vectors beyond the table raise nothing.
    pub fn raise(&mut self, bus: &Bus<'_>, config: &ConfigSpace, vector: u16) {
        if let Some(pending) = self.pending.get_mut(usize::from(vector)) {
            *pending = true;
        }
        self.send_pending(bus, config);
    }

    /// Sends what is pending and not masked (any more).
    pub fn send_pending(&mut self, bus: &Bus<'_>, config: &ConfigSpace) {
        let control = self.control(config);
        if control & ENABLE == 0 || control & MASK_ALL != 0 || !config.bus_master() {
            return;
        }
        for (pending, &[low, high, data, mask]) in self.pending.iter_mut().zip(&self.table) {
            if *pending && mask & MASKED == 0 {
                *pending = false;
                bus.message(MsiMessage { addr: u64::from(high) << 32 | u64::from(low), data });
            }
        }
    }

    /// The guest reads the BAR, at or behind the table's start.
    pub fn read(&self, offset: u64) -> u32 {
        let offset = offset.saturating_sub(self.start);
        let word = (offset / 4) as usize;
        match offset.checked_sub(self.pba) {
            None => self.table.get(word / 4).map_or(0, |entry| entry[word % 4]),
            Some(offset) => {
                let first = offset as usize / 4 * 32;
                let bits = (0..32).filter(|bit| self.pending.get(first + bit) == Some(&true));
                bits.fold(0, |bits, bit| bits | 1 << bit)
            }
        }
    }

    /// The guest writes the BAR, at or behind the table's start.
    pub fn write(&mut self, bus: &Bus<'_>, config: &ConfigSpace, offset: u64, value: u32) {
        let word = (offset.saturating_sub(self.start) / 4) as usize;
        if let Some(entry) = self.table.get_mut(word / 4) {
            entry[word % 4] = value;
        }
        self.send_pending(bus, config);
    }
}
