//! The fixed ACPI description table: power-off, reset, and the power-management timer.
//!
//! Source: ACPI 6.5, 5.2.9 and 4.8.

use crate::firmware::bytes::{u8_at, u32_at, u64_at};

/// Where a register lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Physical memory.
    Memory,
    /// I/O ports.
    Port,
}

/// A generic address structure (ACPI 5.2.3.2), in the two spaces that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// Its space.
    pub space: Space,
    /// Its address; a port number fits 16 bits.
    pub address: u64,
}

impl Register {
    fn parse(table: &[u8], offset: usize) -> Option<Self> {
        let address = u64_at(table, offset + 4)?;
        let space = match u8_at(table, offset)? {
            0 if address < 1 << 52 => Space::Memory,
            1 if address <= u64::from(u16::MAX) => Space::Port,
            _ => return None,
        };
        (address != 0).then_some(Self { space, address })
    }

    /// A 32-bit port field of the old part of the table, zero for absent.
    fn port(table: &[u8], offset: usize) -> Option<Self> {
        let address = u64::from(u32_at(table, offset)?);
        (address != 0 && address <= u64::from(u16::MAX)).then_some(Self { space: Space::Port, address })
    }

    /// The 64-bit field at `wide` if there is one, else the 32-bit one at `narrow`.
    fn either(table: &[u8], wide: usize, narrow: usize) -> Option<Self> {
        Self::parse(table, wide).or_else(|| Self::port(table, narrow))
    }
}

/// Power management registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fadt {
    /// Physical address of the DSDT; zero if absent.
    pub dsdt: u64,
    /// The first PM1 control register: SLP_TYP and SLP_EN.
    pub pm1a_control: Option<Register>,
    /// The second one.
    pub pm1b_control: Option<Register>,
    /// The 3.579545 MHz timer.
    pub pm_timer: Option<Register>,
    /// The timer counts 32 bits, else 24.
    pub pm_timer_is_wide: bool,
    /// Hardware-reduced ACPI: sleep goes through `sleep_control`.
    pub hardware_reduced: bool,
    /// The sleep control register.
    pub sleep_control: Option<Register>,
    /// Where to write which byte to reset the machine.
    pub reset: Option<(Register, u8)>,
}

impl Fadt {
    /// Parses a table whose checksum was verified. Fields beyond its length are absent.
    pub fn parse(table: &[u8]) -> Option<Self> {
        let flags = u32_at(table, 112)?;
        let reset = (flags & 1 << 10 != 0).then(|| Register::parse(table, 116).zip(u8_at(table, 128))).flatten();
        Some(Self {
            dsdt: u64_at(table, 140).filter(|&address| address != 0).unwrap_or(u64::from(u32_at(table, 40)?)),
            pm1a_control: Register::either(table, 172, 64),
            pm1b_control: Register::either(table, 184, 68),
            pm_timer: Register::either(table, 208, 76),
            pm_timer_is_wide: flags & 1 << 8 != 0,
            hardware_reduced: flags & 1 << 20 != 0,
            sleep_control: Register::parse(table, 244),
            reset,
        })
    }
}
