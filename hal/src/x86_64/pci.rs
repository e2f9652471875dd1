//! PCI configuration space: memory-mapped where the firmware's MCFG table says so, else ports 0xCF8 and 0xCFC.
//!
//! Source: PCI Express 6.0, 7.2.2 (ECAM); PCI Local Bus 3.0, 3.2.2.3.2 (mechanism 1).
//!
//! Contexts: all. Rank: [`Rank::PCI`].

use arrayvec::ArrayVec;

use super::{paging, port};
use crate::firmware::acpi::{Ecam, Tables};
use crate::irq::IrqLine;
use crate::pci::Address;
use crate::sync::{IrqSpinLock, Rank};

const ADDRESS_PORT: u16 = 0xCF8;
const DATA_PORT: u16 = 0xCFC;
/// Bytes of configuration space per bus.
const BUS_BYTES: u64 = 1 << 20;

struct Spaces {
    /// What the firmware named, and where it is seen.
    windows: ArrayVec<(Ecam, u64), 8>,
    /// Ports 0xCF8 and 0xCFC answer.
    ports: bool,
}

static SPACES: IrqSpinLock<Spaces> =
    IrqSpinLock::new(Rank::PCI, Spaces { windows: ArrayVec::new_const(), ports: false });

/// Maps the spaces that the tables name, and looks whether the ports answer.
pub(super) fn init(tables: Option<&Tables>) {
    let mut spaces = SPACES.lock();
    for ecam in tables.into_iter().flat_map(|tables| &tables.ecam) {
        let start = ecam.base + u64::from(ecam.first_bus) * BUS_BYTES;
        let bytes = (u64::from(ecam.last_bus - ecam.first_bus) + 1) * BUS_BYTES;
        if let Some(at) = paging::map_device(start, bytes as usize) {
            let _ = spaces.windows.try_push((*ecam, at));
        }
    }
    // The address register keeps what a 32-bit write left in it; where nothing listens all ones come back.
    port::write32(ADDRESS_PORT, 0x8000_0000);
    spaces.ports = port::read32(ADDRESS_PORT) == 0x8000_0000;
}

/// Where a register is, for this access.
enum Place {
    Memory(*mut u32),
    Ports(u32),
}

impl Spaces {
    fn place(&self, address: Address, offset: u16) -> Option<Place> {
        let Address { segment, bus, device, function } = address;
        if device >= 32 || function >= 8 || offset >= 4096 || !offset.is_multiple_of(4) {
            return None;
        }
        let at = u64::from(device) << 15 | u64::from(function) << 12 | u64::from(offset);
        let window = self
            .windows
            .iter()
            .find(|(ecam, _)| ecam.segment == segment && (ecam.first_bus..=ecam.last_bus).contains(&bus));
        if let Some((ecam, seen)) = window {
            let at = seen + u64::from(bus - ecam.first_bus) * BUS_BYTES + at;
            return Some(Place::Memory(core::ptr::with_exposed_provenance_mut(at as usize)));
        }
        let reachable = self.ports && segment == 0 && offset < 256;
        let device = u32::from(bus) << 16 | u32::from(device) << 11 | u32::from(function) << 8;
        reachable.then_some(Place::Ports(0x8000_0000 | device | u32::from(offset)))
    }
}

/// `Platform::pci_read`.
pub(super) fn read(address: Address, offset: u16) -> u32 {
    let spaces = SPACES.lock();
    match spaces.place(address, offset) {
        // SAFETY: the place lies in a window that `init` mapped for ever, at a multiple of four.
        Some(Place::Memory(register)) => unsafe { register.read_volatile() },
        Some(Place::Ports(selector)) => {
            port::write32(ADDRESS_PORT, selector);
            port::read32(DATA_PORT)
        }
        None => u32::MAX,
    }
}

/// `Platform::pci_write`.
pub(super) fn write(address: Address, offset: u16, value: u32) {
    let spaces = SPACES.lock();
    match spaces.place(address, offset) {
        // SAFETY: as in `read`. What the device does because of it is its driver's matter.
        Some(Place::Memory(register)) => unsafe { register.write_volatile(value) },
        Some(Place::Ports(selector)) => {
            port::write32(ADDRESS_PORT, selector);
            port::write32(DATA_PORT, value);
        }
        None => {}
    }
}

/// `Platform::pci_line`: the firmware routed the pin to an ISA interrupt and wrote its number into the function's
/// interrupt line register (PCI 3.0, 6.2.4). PCI lines are level-triggered; PC chipsets invert them on the way to the
/// interrupt controllers' ISA pins.
pub(super) fn line(address: Address, pin: u8) -> Option<IrqLine> {
    const INTERRUPT: u16 = 0x3C;
    let number = read(address, INTERRUPT) & 0xFF;
    let known = (1..=4).contains(&pin) && number != 0 && number != 0xFF;
    known.then_some(IrqLine { number, level: true, low: false })
}
