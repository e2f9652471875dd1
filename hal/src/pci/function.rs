//! One PCI function: identity, BARs, command register, capabilities.

use alloc::vec::Vec;
use core::fmt;

use virtio_drivers::transport::pci::bus::{BarInfo, Command, DeviceFunctionInfo, HeaderType, PciRoot};

use super::config::{Address, Segment};
use crate::context::Task;
use crate::irq::IrqLine;
use crate::mmio::{Mmio, MmioError, Ports};
use crate::platform::seam;

/// Why a PCI function could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PciError {
    /// The BAR is absent, or of another kind than asked for.
    NoBar,
    /// The BAR describes nothing usable.
    BadBar,
    /// Its registers could not be mapped.
    Map(MmioError),
    /// The bridge above passes on too little for all BARs of what was plugged in.
    NoRoom,
}

impl fmt::Display for PciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBar => f.write_str("the function has no such BAR"),
            Self::BadBar => f.write_str("the BAR is not valid"),
            Self::Map(error) => write!(f, "cannot map the BAR: {error}"),
            Self::NoRoom => f.write_str("the bridge has no room for the BARs"),
        }
    }
}

/// A base address register, sized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bar {
    /// Registers in memory space: physical address and bytes.
    Memory {
        /// Physical address.
        addr: u64,
        /// Bytes.
        len: u64,
    },
    /// Registers in I/O space.
    Io {
        /// First port.
        base: u16,
        /// Ports.
        len: u16,
    },
}

/// A capability's place in configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// Its identifier (PCI 3.0 appendix H; 0x09 is vendor-specific, 0x11 MSI-X).
    pub id: u8,
    /// Its offset in configuration space, in bytes.
    pub offset: u8,
}

/// A PCI function that a driver may take over.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// Where it is.
    pub address: Address,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Class, subclass, programming interface.
    pub class: (u8, u8, u8),
    /// Revision.
    pub revision: u8,
}

impl Function {
    fn from_info(address: Address, info: &DeviceFunctionInfo) -> Self {
        Self {
            address,
            vendor: info.vendor_id,
            device: info.device_id,
            class: (info.class, info.subclass, info.prog_if),
            revision: info.revision,
        }
    }

    fn root(&self) -> PciRoot<Segment> {
        PciRoot::new(Segment(self.address.segment))
    }

    /// Reads a 32-bit configuration register; `offset` is rounded down to a multiple of 4.
    pub fn read(&self, offset: u16) -> u32 {
        seam::pci_read(self.address, offset & 0xffc)
    }

    /// Writes a 32-bit configuration register; `offset` is rounded down to a multiple of 4.
    pub fn write(&self, offset: u16, value: u32) {
        seam::pci_write(self.address, offset & 0xffc, value);
    }

    /// Reads one byte of configuration space.
    pub fn read_u8(&self, offset: u16) -> u8 {
        (self.read(offset) >> (8 * (offset & 3))) as u8
    }

    /// Reads 16 bits of configuration space; `offset` is even.
    pub fn read_u16(&self, offset: u16) -> u16 {
        (self.read(offset) >> (8 * (offset & 2))) as u16
    }

    /// Subsystem vendor and device id.
    pub fn subsystem(&self) -> (u16, u16) {
        (self.read_u16(0x2c), self.read_u16(0x2e))
    }

    /// The capability list, in order. Bounded: a list that loops ends after 48 entries, as many as fit.
    pub fn capabilities(&self) -> impl Iterator<Item = Capability> + '_ {
        const HAS_LIST: u16 = 1 << 4;
        let mut next = if self.read_u16(0x06) & HAS_LIST != 0 { self.read_u8(0x34) & !3 } else { 0 };
        let mut left = 48;
        core::iter::from_fn(move || {
            if next < 0x40 || left == 0 {
                return None;
            }
            left -= 1;
            let header = self.read(u16::from(next));
            let found = Capability { id: header as u8, offset: next };
            next = (header >> 8) as u8 & !3;
            Some(found)
        })
    }

    /// Describes base address register `index` (0 to 5).
    ///
    /// # Errors
    /// [`PciError::NoBar`] or [`PciError::BadBar`].
    pub fn bar(&self, index: u8) -> Result<Bar, PciError> {
        if index > 5 {
            return Err(PciError::NoBar);
        }
        match self.root().bar_info(self.address.device_function(), index) {
            Ok(Some(BarInfo::Memory { address, size, .. })) if address != 0 && size != 0 => {
                Ok(Bar::Memory { addr: address, len: size })
            }
            Ok(Some(BarInfo::IO { address, size })) if address != 0 && size != 0 => Ok(Bar::Io {
                base: u16::try_from(address).map_err(|_| PciError::BadBar)?,
                len: u16::try_from(size).unwrap_or(u16::MAX),
            }),
            Ok(_) => Err(PciError::NoBar),
            Err(_) => Err(PciError::BadBar),
        }
    }

    /// Maps a memory BAR.
    ///
    /// # Errors
    /// [`PciError`].
    pub fn map_bar(&self, index: u8) -> Result<Mmio, PciError> {
        match self.bar(index)? {
            Bar::Memory { addr, len } => {
                let len = usize::try_from(len).map_err(|_| PciError::BadBar)?;
                Mmio::map(addr, len).map_err(PciError::Map)
            }
            Bar::Io { .. } => Err(PciError::NoBar),
        }
    }

    /// The ports of an I/O BAR.
    ///
    /// # Errors
    /// [`PciError`].
    pub fn ports(&self, index: u8) -> Result<Ports, PciError> {
        match self.bar(index)? {
            Bar::Io { base, len } => Ok(Ports::new(base, len)),
            Bar::Memory { .. } => Err(PciError::NoBar),
        }
    }

    fn command(&self, change: impl FnOnce(Command) -> Command) {
        let mut root = self.root();
        let at = self.address.device_function();
        let (_, command) = root.get_status_command(at);
        root.set_command(at, change(command));
    }

    /// Lets the function answer in memory and I/O space and master the bus.
    pub fn enable(&self) {
        self.command(|c| c | Command::MEMORY_SPACE | Command::IO_SPACE | Command::BUS_MASTER);
    }

    /// Stops the function's DMA (after its reset, when its driver lets go).
    pub fn disable_bus_master(&self) {
        self.command(|c| c & !Command::BUS_MASTER);
    }

    /// Keeps the function from raising its wired interrupt, or lets it.
    pub fn mask_intx(&self, masked: bool) {
        self.command(|c| if masked { c | Command::INTERRUPT_DISABLE } else { c & !Command::INTERRUPT_DISABLE });
    }

    /// The wired line of the function's interrupt pin, if it has one that the platform can route.
    pub fn line(&self) -> Option<IrqLine> {
        let pin = self.read_u8(0x3d);
        if (1..=4).contains(&pin) { seam::pci_line(self.address, pin) } else { None }
    }
}

/// Finds every function of segment 0 reachable from bus 0 through bridges, but the bridges.
pub fn devices(cx: &Task) -> Vec<Function> {
    behind(cx, 0)
}

/// Finds every function of segment 0 on a bus and on those behind it, but the bridges.
pub fn behind(_cx: &Task, bus: u8) -> Vec<Function> {
    walk(bus, false)
}

/// Finds every bridge of segment 0.
pub(super) fn bridges(_cx: &Task) -> Vec<Function> {
    walk(0, true)
}

fn walk(from: u8, bridges: bool) -> Vec<Function> {
    let mut found = Vec::new();
    let mut seen = [false; 256];
    let mut buses = Vec::from([from]);
    while let Some(bus) = buses.pop() {
        // A bridge that names a bus already walked would make this loop for ever.
        if core::mem::replace(&mut seen[usize::from(bus)], true) {
            continue;
        }
        for (at, info) in PciRoot::new(Segment(0)).enumerate_bus(bus) {
            let address = Address { segment: 0, bus: at.bus, device: at.device, function: at.function };
            let function = Function::from_info(address, &info);
            let is_bridge = info.header_type == HeaderType::PciPciBridge;
            if is_bridge {
                buses.push(function.read_u8(0x19));
            }
            if is_bridge == bridges {
                found.push(function);
            }
        }
    }
    found.sort_by_key(|function| function.address);
    found
}
