//! ACPI: processors, interrupt controllers, PCI configuration space, timers and power-off, out of the static tables.
//!
//! Source: ACPI specification 6.5, chapter 5. There is no AML interpreter: what is needed of the DSDT (the sleep
//! value of S5, virtio devices on the memory bus) is found by its bytes ([`aml`]).
//!
//! Every table's checksum is verified; a table that fails it is as good as absent.

use arrayvec::ArrayVec;

use super::bytes::{array, u8_at, u32_at, u64_at};
use super::command_line::VirtioMmio;

pub mod aml;
pub mod fadt;
pub mod madt;

#[cfg(test)]
mod tests;

pub use fadt::{Fadt, Register, Space};
pub use madt::{IoApic, Madt, Override};

/// Bytes of the header that all tables but the root pointer share.
pub const HEADER_BYTES: usize = 36;
/// The largest table that is looked at, in bytes.
const MAX_TABLE_BYTES: usize = 1 << 20;
/// Entries of the root table that are looked at.
const MAX_TABLES: usize = 128;

/// Physical memory that holds tables.
pub trait Memory {
    /// Returns `bytes` bytes at physical address `address`, or `None` if they cannot be read.
    fn read(&self, address: u64, bytes: usize) -> Option<&[u8]>;
}

/// Why there are no tables to read. The firmware is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiError {
    /// No root pointer with the right signature and checksum.
    RootPointer,
    /// The root pointer names no valid root table.
    RootTable,
}

impl core::fmt::Display for AcpiError {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str(match self {
            Self::RootPointer => "the firmware gave no valid ACPI root pointer",
            Self::RootTable => "the firmware's ACPI root table is not valid",
        })
    }
}

/// One segment's (or part's) memory-mapped PCI configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ecam {
    /// Physical address of bus 0, whether or not bus 0 is part of it.
    pub base: u64,
    /// Segment group.
    pub segment: u16,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
}

/// What the tables say, as far as the platform asks.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// The manufacturer's id in the root pointer ("BOCHS " is QEMU).
    pub oem: [u8; 6],
    /// Processors and interrupt controllers.
    pub madt: Option<Madt>,
    /// Power management.
    pub fadt: Option<Fadt>,
    /// PCI configuration space in memory.
    pub ecam: ArrayVec<Ecam, 8>,
    /// Physical address of the high precision event timer.
    pub hpet: Option<u64>,
    /// Values of SLP_TYPa and SLP_TYPb for power-off.
    pub s5: Option<(u8, u8)>,
    /// Virtio devices on the memory bus.
    pub virtio_mmio: ArrayVec<VirtioMmio, 32>,
}

impl Tables {
    /// Reads the tables that `root_pointer` leads to.
    ///
    /// # Errors
    /// [`AcpiError`] if there is no usable root table; a damaged table below it is left out.
    pub fn read(memory: &impl Memory, root_pointer: u64) -> Result<Self, AcpiError> {
        let root = Root::read(memory, root_pointer).ok_or(AcpiError::RootPointer)?;
        let mut tables = Self { oem: root.oem, ..Self::default() };
        let entries = root.table(memory).ok_or(AcpiError::RootTable)?;
        for entry in entries.get(HEADER_BYTES..).unwrap_or(&[]).chunks_exact(root.entry_bytes()).take(MAX_TABLES) {
            let address = if root.wide { u64_at(entry, 0) } else { u32_at(entry, 0).map(u64::from) };
            if let Some(table) = address.and_then(|address| table(memory, address)) {
                tables.take(table);
            }
        }
        let dsdt = tables.fadt.and_then(|fadt| table(memory, fadt.dsdt));
        if let Some(dsdt) = dsdt.filter(|dsdt| dsdt.starts_with(b"DSDT")) {
            tables.take_definitions(dsdt);
        }
        Ok(tables)
    }

    fn take(&mut self, table: &[u8]) {
        match table.first_chunk() {
            Some(b"APIC") if self.madt.is_none() => self.madt = Madt::parse(table),
            Some(b"FACP") if self.fadt.is_none() => self.fadt = Fadt::parse(table),
            Some(b"MCFG") => self.take_mcfg(table),
            Some(b"HPET") if self.hpet.is_none() => self.hpet = hpet(table),
            Some(b"SSDT") => self.take_definitions(table),
            _ => {}
        }
    }

    fn take_mcfg(&mut self, table: &[u8]) {
        for entry in table.get(44..).unwrap_or(&[]).chunks_exact(16) {
            let ecam = (|| {
                let ecam = Ecam {
                    base: u64_at(entry, 0)?,
                    segment: u16::from_le_bytes(array(entry, 8)?),
                    first_bus: u8_at(entry, 10)?,
                    last_bus: u8_at(entry, 11)?,
                };
                // 1 MiB per bus; the last one must lie within 52 bits.
                let end = ecam.base.checked_add((u64::from(ecam.last_bus) + 1) << 20)?;
                let sound = ecam.first_bus <= ecam.last_bus && ecam.base.is_multiple_of(1 << 20) && end <= 1 << 52;
                (sound && ecam.base != 0).then_some(ecam)
            })();
            if let Some(ecam) = ecam {
                let _ = self.ecam.try_push(ecam);
            }
        }
    }

    fn take_definitions(&mut self, table: &[u8]) {
        let code = table.get(HEADER_BYTES..).unwrap_or(&[]);
        self.s5 = self.s5.or_else(|| aml::sleep_values(code));
        for device in aml::virtio_mmio(code) {
            let _ = self.virtio_mmio.try_push(device);
        }
    }
}

/// Finds the root pointer where a PC's firmware leaves it: on a 16-byte boundary in the last 128 KiB below 1 MiB.
pub fn find_root_pointer(memory: &impl Memory) -> Option<u64> {
    const START: u64 = 0xE_0000;
    let area = memory.read(START, 0x2_0000)?;
    let offsets = area.chunks_exact(16).zip(0u64..).filter(|(bytes, _)| bytes.starts_with(b"RSD PTR "));
    offsets.map(|(_, index)| START + index * 16).find(|&address| Root::read(memory, address).is_some())
}

/// The root pointer (RSDP), ACPI 5.2.5.3.
struct Root {
    oem: [u8; 6],
    address: u64,
    /// The root table is an XSDT with 64-bit entries.
    wide: bool,
}

impl Root {
    fn read(memory: &impl Memory, address: u64) -> Option<Self> {
        let bytes = memory.read(address, 20)?;
        if !bytes.starts_with(b"RSD PTR ") || sum(bytes) != 0 {
            return None;
        }
        let oem = array(bytes, 9)?;
        let narrow = Self { oem, address: u64::from(u32_at(bytes, 16)?), wide: false };
        if u8_at(bytes, 15)? < 2 {
            return Some(narrow);
        }
        let bytes = memory.read(address, 36)?;
        let wide = u64_at(bytes, 24)?;
        Some(if sum(bytes) == 0 && wide != 0 { Self { oem, address: wide, wide: true } } else { narrow })
    }

    fn entry_bytes(&self) -> usize {
        if self.wide { 8 } else { 4 }
    }

    fn table<'m>(&self, memory: &'m impl Memory) -> Option<&'m [u8]> {
        let signature: &[u8] = if self.wide { b"XSDT" } else { b"RSDT" };
        table(memory, self.address).filter(|table| table.starts_with(signature))
    }
}

/// Returns the whole table at `address` if its length is sane and its checksum right.
fn table(memory: &impl Memory, address: u64) -> Option<&[u8]> {
    if address == 0 {
        return None;
    }
    let length = usize::try_from(u32_at(memory.read(address, HEADER_BYTES)?, 4)?).ok()?;
    if !(HEADER_BYTES..=MAX_TABLE_BYTES).contains(&length) {
        return None;
    }
    memory.read(address, length).filter(|table| sum(table) == 0)
}

/// The HPET table, IA-PC HPET specification 1.0a, 3.2.4: the registers' address, if they lie in memory.
fn hpet(table: &[u8]) -> Option<u64> {
    let address = u64_at(table, 44)?;
    (u8_at(table, 40)? == 0 && address != 0 && address < 1 << 52 && address % 1024 == 0).then_some(address)
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}
