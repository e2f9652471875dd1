//! The multiple APIC description table: processors, I/O APICs, interrupt source overrides.
//!
//! Source: ACPI 6.5, 5.2.12.

use arrayvec::ArrayVec;

use crate::firmware::bytes::{u8_at, u16_at, u32_at, u64_at};

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// Physical address of its registers.
    pub address: u32,
    /// Global system interrupt of its first pin.
    pub first: u32,
}

/// An ISA interrupt that arrives elsewhere or differently than its number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// ISA interrupt number.
    pub source: u8,
    /// Global system interrupt where it arrives.
    pub line: u32,
    /// Level-triggered; else edge, which is also what "conforms to the bus" means for ISA.
    pub level: bool,
    /// Active low; else high, which is also what "conforms to the bus" means for ISA.
    pub low: bool,
}

/// Processors and interrupt controllers.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Madt {
    /// Physical address of the local APIC's registers.
    pub local_apic: u64,
    /// The machine also has two 8259 interrupt controllers.
    pub has_8259: bool,
    /// APIC ids of the enabled processors. More than fit are left out.
    pub cpus: ArrayVec<u32, 64>,
    /// I/O APICs.
    pub io_apics: ArrayVec<IoApic, 8>,
    /// Interrupt source overrides.
    pub overrides: ArrayVec<Override, 16>,
}

impl Madt {
    /// Parses a table whose checksum was verified. An entry of a wrong length ends the walk or is left out.
    pub fn parse(table: &[u8]) -> Option<Self> {
        let mut madt = Self {
            local_apic: u64::from(u32_at(table, 36)?),
            has_8259: u32_at(table, 40)? & 1 != 0,
            ..Self::default()
        };
        let mut rest = table.get(44..)?;
        while let Some(&length) = rest.get(1) {
            let Some(entry) = rest.get(..usize::from(length)) else { break };
            if length < 2 {
                break;
            }
            // `take` answers `None` for an entry that is too short for its type: it says nothing.
            let _ = madt.take(entry);
            rest = &rest[usize::from(length)..];
        }
        Some(madt)
    }

    fn take(&mut self, entry: &[u8]) -> Option<()> {
        match u8_at(entry, 0)? {
            0 => self.take_cpu(u32::from(u8_at(entry, 3)?), u32_at(entry, 4)?),
            1 => {
                let io_apic = IoApic { address: u32_at(entry, 4)?, first: u32_at(entry, 8)? };
                let _ = self.io_apics.try_push(io_apic);
            }
            2 => {
                let flags = u16_at(entry, 8)?;
                let (polarity, trigger) = (flags & 3, flags >> 2 & 3);
                let found = Override {
                    source: u8_at(entry, 3)?,
                    line: u32_at(entry, 4)?,
                    level: trigger == 3,
                    low: polarity == 3,
                };
                // Only bus 0, ISA, is defined.
                if u8_at(entry, 2)? == 0 {
                    let _ = self.overrides.try_push(found);
                }
            }
            5 => self.local_apic = u64_at(entry, 4)?,
            9 => self.take_cpu(u32_at(entry, 4)?, u32_at(entry, 8)?),
            _ => {}
        }
        Some(())
    }

    fn take_cpu(&mut self, id: u32, flags: u32) {
        const NONE: [u32; 2] = [0xFF, u32::MAX];
        if flags & 1 != 0 && !NONE.contains(&id) && !self.cpus.contains(&id) {
            let _ = self.cpus.try_push(id);
        }
    }
}
