//! MSI-X: a function's table of interrupt messages (PCI 3.0, 6.8.2).

use super::function::{Function, PciError};
use crate::irq::MsiMessage;
use crate::mmio::Mmio;

const ID: u8 = 0x11;
const ENABLE: u32 = 1 << 31;
const MASK_ALL: u32 = 1 << 30;

/// A function's MSI-X capability with its table mapped.
#[derive(Debug)]
pub struct Msix {
    function: Function,
    offset: u16,
    table: Mmio,
    len: u16,
}

impl Msix {
    /// Finds and maps the function's table, with every entry masked and MSI-X off. `None` if it has no MSI-X.
    ///
    /// # Errors
    /// [`PciError`] when the capability points outside the function's BARs.
    pub fn new(function: Function) -> Result<Option<Self>, PciError> {
        let Some(capability) = function.capabilities().find(|c| c.id == ID) else { return Ok(None) };
        let offset = u16::from(capability.offset);
        let len = ((function.read(offset) >> 16) as u16 & 0x7ff) + 1;
        let place = function.read(offset + 4);
        let bar = function.map_bar((place & 7) as u8)?;
        let table = bar.sub((place & !7) as usize, usize::from(len) * 16).ok_or(PciError::BadBar)?;
        let msix = Self { function, offset, table, len };
        msix.control(|c| c & !(ENABLE | MASK_ALL));
        for entry in 0..len {
            msix.mask(entry);
        }
        Ok(Some(msix))
    }

    fn control(&self, change: impl FnOnce(u32) -> u32) {
        self.function.write(self.offset, change(self.function.read(self.offset)));
    }

    /// Entries in the table (1 to 2048).
    pub const fn len(&self) -> u16 {
        self.len
    }

    /// Whether the table is empty (it never is).
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Sets an entry's message and unmasks it. An entry beyond the table is ignored.
    pub fn set(&self, entry: u16, message: MsiMessage) {
        let at = usize::from(entry) * 16;
        if entry < self.len {
            self.mask(entry);
            self.table.write(at, message.addr as u32);
            self.table.write(at + 4, (message.addr >> 32) as u32);
            self.table.write(at + 8, message.data);
            self.table.write(at + 12, 0u32);
        }
    }

    /// Masks an entry.
    pub fn mask(&self, entry: u16) {
        if entry < self.len {
            self.table.write(usize::from(entry) * 16 + 12, 1u32);
        }
    }

    /// Turns MSI-X on; the wired interrupt is off from then on.
    pub fn enable(&self) {
        self.control(|c| (c | ENABLE) & !MASK_ALL);
    }

    /// Turns MSI-X off.
    pub fn disable(&self) {
        self.control(|c| c & !ENABLE);
    }
}
