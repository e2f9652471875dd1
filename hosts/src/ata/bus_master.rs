//! The bus master of one channel: its three registers and the table of regions (BM 1.2, 2.1, 3.1).

use super::Breach;
use crate::Bus;

const START: u8 = 1;
const TO_MEMORY: u8 = 8;
pub(super) const ACTIVE: u8 = 1;
pub(super) const ERROR: u8 = 2;
pub(super) const INTERRUPT: u8 = 4;
const CAPABLE: u8 = 0x60;
const END: u16 = 0x8000;
/// No table is longer than what fits before a 64 KiB boundary.
const MOST: usize = 8192;

#[derive(Debug, Default)]
pub(super) struct BusMaster {
    command: u8,
    pub status: u8,
    table: u32,
    /// What is left of the regions, in order.
    regions: Vec<(u32, u32)>,
    at: usize,
    /// Bytes in all regions.
    pub total: usize,
}

impl BusMaster {
    pub fn active(&self) -> bool {
        self.status & ACTIVE != 0
    }

    pub fn to_memory(&self) -> bool {
        self.command & TO_MEMORY != 0
    }

    pub fn started(&self) -> bool {
        self.command & START != 0
    }

    pub fn read(&self, offset: u64) -> u8 {
        match offset {
            0 => self.command,
            2 => self.status,
            4..8 => self.table.to_le_bytes()[offset as usize - 4],
            _ => 0,
        }
    }

    /// Writes a register; what was wrong with it goes to `breach`.
    pub fn write(&mut self, bus: &Bus<'_>, offset: u64, value: u8, master: bool, breach: &mut dyn FnMut(Breach)) {
        match offset {
            0 => {
                let value = value & (START | TO_MEMORY);
                let starts = value & START != 0 && !self.started();
                if self.active() && value & TO_MEMORY != self.command & TO_MEMORY && value & START != 0 {
                    breach(Breach::ChangedWhileActive);
                }
                self.command = value;
                if starts {
                    if !master {
                        breach(Breach::NotBusMaster);
                        return;
                    }
                    self.status |= ACTIVE;
                    self.load(bus, breach);
                } else if value & START == 0 {
                    self.status &= !ACTIVE;
                    self.regions.clear();
                }
            }
            2 => {
                let cleared = value & (ERROR | INTERRUPT);
                self.status = self.status & !CAPABLE & !cleared | value & CAPABLE;
            }
            4..8 => {
                if self.active() {
                    breach(Breach::ChangedWhileActive);
                    return;
                }
                let mut bytes = self.table.to_le_bytes();
                bytes[offset as usize - 4] = value;
                self.table = u32::from_le_bytes(bytes);
            }
            _ => {}
        }
    }

    /// Reads the table, as strictly as the specification is.
    fn load(&mut self, bus: &Bus<'_>, breach: &mut dyn FnMut(Breach)) {
        self.regions.clear();
        (self.at, self.total) = (0, 0);
        if !self.table.is_multiple_of(4) {
            breach(Breach::TableAlignment(self.table));
        }
        for index in 0..MOST as u32 {
            let at = u64::from(self.table) + 8 * u64::from(index);
            if at >> 16 != u64::from(self.table) >> 16 {
                breach(Breach::TableCrosses(self.table));
                return;
            }
            let entry: [u8; 8] = match bus.read_array(at) {
                Ok(entry) => entry,
                Err(bad) => return breach(bad.into()),
            };
            let addr = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
            let count = u16::from_le_bytes([entry[4], entry[5]]);
            let flags = u16::from_le_bytes([entry[6], entry[7]]);
            if !addr.is_multiple_of(2) || !count.is_multiple_of(2) {
                breach(Breach::RegionOdd(addr, count));
            }
            let len = if count == 0 { 1 << 16 } else { u32::from(count) };
            if u64::from(addr) % (1 << 16) + u64::from(len) > 1 << 16 {
                breach(Breach::RegionCrosses(addr, count));
            }
            if flags & !END != 0 {
                breach(Breach::Reserved(flags));
            }
            self.regions.push((addr, len));
            self.total += len as usize;
            if flags & END != 0 {
                return;
            }
        }
        breach(Breach::TableEndless);
    }

    /// The next run of memory, of `most` bytes at most; `None` when the regions are used up.
    pub fn next(&mut self, most: usize) -> Option<(u64, usize)> {
        let (addr, left) = self.regions.get_mut(self.at)?;
        let len = (*left as usize).min(most);
        let run = (u64::from(*addr), len);
        *addr = addr.wrapping_add(len as u32);
        *left -= len as u32;
        if *left == 0 {
            self.at += 1;
        }
        Some(run)
    }

    /// The last region is used up: the engine stops by itself.
    pub fn exhausted(&mut self) -> bool {
        let over = self.at >= self.regions.len();
        if over {
            self.status &= !ACTIVE;
        }
        over
    }

    /// Stops by itself.
    pub fn stop(&mut self) {
        self.status &= !ACTIVE;
    }

    /// Stops by itself, with the error bit.
    pub fn fail(&mut self) {
        self.status = self.status & !ACTIVE | ERROR;
    }
}
