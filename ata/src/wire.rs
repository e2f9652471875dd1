//! Numbers and layouts: types and constants only.
//!
//! Sources: ATA/ATAPI-6 (T13/1410D revision 3b), ACS-2 for DATA SET MANAGEMENT, Programming Interface for Bus Master IDE Controllers 1.0 (BM),
//! PCI IDE Controller Specification 1.0, Intel 82371AB (PIIX4) datasheet.

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Command block registers, as offsets from its first port (ATA 7, table 8).
pub mod block {
    /// Data, 16 bits.
    pub const DATA: u16 = 0;
    /// Error when read, features when written.
    pub const ERROR: u16 = 1;
    /// Features.
    pub const FEATURES: u16 = 1;
    /// Sector count.
    pub const COUNT: u16 = 2;
    /// LBA bits 0 to 7.
    pub const LBA_LOW: u16 = 3;
    /// LBA bits 8 to 15.
    pub const LBA_MID: u16 = 4;
    /// LBA bits 16 to 23.
    pub const LBA_HIGH: u16 = 5;
    /// Device: which drive, and how it is addressed.
    pub const DEVICE: u16 = 6;
    /// Status when read, command when written.
    pub const STATUS: u16 = 7;
    /// Command.
    pub const COMMAND: u16 = 7;
    /// Ports of the block.
    pub const LEN: u16 = 8;
}

/// The device register (ATA 7.7).
pub mod device {
    /// Bits that were once always set, and addressing by LBA.
    pub const LBA: u8 = 0xe0;
    /// The second drive.
    pub const SECOND: u8 = 0x10;
}

bitflags! {
    /// The status register (ATA 7.15).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Status: u8 {
        /// Busy: no other bit counts.
        const BSY = 0x80;
        /// Ready for commands.
        const DRDY = 0x40;
        /// Device fault.
        const DF = 0x20;
        /// Wants to move data.
        const DRQ = 0x08;
        /// The error register says more.
        const ERR = 0x01;
        const _ = !0;
    }

    /// The error register (ATA 7.9); some bits mean one thing for reads and another for writes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ErrorBits: u8 {
        /// An error on the cable in Ultra DMA.
        const ICRC = 0x80;
        /// Reads: data that cannot be corrected. Writes: the medium is write protected.
        const UNC_WP = 0x40;
        /// The medium was changed.
        const MC = 0x20;
        /// The address was not found.
        const IDNF = 0x10;
        /// Somebody asked for the medium to be taken out.
        const MCR = 0x08;
        /// Aborted.
        const ABRT = 0x04;
        /// No medium.
        const NM = 0x02;
        const _ = !0;
    }

    /// The device control register (ATA 7.8).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Control: u8 {
        /// No interrupts.
        const NIEN = 0x02;
        /// Software reset of both drives.
        const SRST = 0x04;
    }

    /// The bus master's command register (BM 2.1).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct MasterCommand: u8 {
        /// Run.
        const START = 0x01;
        /// From the drive to memory.
        const TO_MEMORY = 0x08;
    }

    /// The bus master's status register (BM 2.2).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct MasterStatus: u8 {
        /// The engine has not come to the end of its table.
        const ACTIVE = 0x01;
        /// An error on the bus. Written as one to clear.
        const ERROR = 0x02;
        /// The drive asked for an interrupt. Written as one to clear.
        const INTERRUPT = 0x04;
        /// What firmware noted of the drives' DMA capability: kept as it is.
        const CAPABLE = 0x60;
        const _ = !0;
    }
}

/// The bus master's registers, as offsets from its first port (BM 2.0).
pub mod master {
    /// Command.
    pub const COMMAND: u16 = 0;
    /// Status.
    pub const STATUS: u16 = 2;
    /// Physical address of the table of regions.
    pub const TABLE: u16 = 4;
    /// Ports of one channel.
    pub const LEN: u16 = 8;
}

/// A command (ATA 8). Open: what is unknown survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command(pub u8);

macro_rules! commands {
    ($($name:ident = $code:expr, $doc:expr;)*) => {
        impl Command {
            $(#[doc = $doc] pub const $name: Self = Self($code);)*
        }
    };
}

commands! {
    DATA_SET_MANAGEMENT = 0x06, "DATA SET MANAGEMENT (ACS-2 7.10).";
    READ_SECTORS = 0x20, "READ SECTOR(S).";
    READ_SECTORS_EXT = 0x24, "READ SECTOR(S) EXT.";
    READ_DMA_EXT = 0x25, "READ DMA EXT.";
    READ_MULTIPLE_EXT = 0x29, "READ MULTIPLE EXT.";
    WRITE_SECTORS = 0x30, "WRITE SECTOR(S).";
    WRITE_SECTORS_EXT = 0x34, "WRITE SECTOR(S) EXT.";
    WRITE_DMA_EXT = 0x35, "WRITE DMA EXT.";
    WRITE_MULTIPLE_EXT = 0x39, "WRITE MULTIPLE EXT.";
    WRITE_DMA_FUA_EXT = 0x3d, "WRITE DMA FUA EXT.";
    IDENTIFY_PACKET_DEVICE = 0xa1, "IDENTIFY PACKET DEVICE.";
    READ_MULTIPLE = 0xc4, "READ MULTIPLE.";
    WRITE_MULTIPLE = 0xc5, "WRITE MULTIPLE.";
    SET_MULTIPLE_MODE = 0xc6, "SET MULTIPLE MODE.";
    READ_DMA = 0xc8, "READ DMA.";
    WRITE_DMA = 0xca, "WRITE DMA.";
    FLUSH_CACHE = 0xe7, "FLUSH CACHE.";
    FLUSH_CACHE_EXT = 0xea, "FLUSH CACHE EXT.";
    IDENTIFY_DEVICE = 0xec, "IDENTIFY DEVICE.";
    SET_FEATURES = 0xef, "SET FEATURES.";
}

/// Values of the features register.
pub mod feature {
    /// SET FEATURES: set the transfer mode that the count register names (ATA 8.37.11).
    pub const TRANSFER_MODE: u8 = 0x03;
    /// SET FEATURES: keep settings over a software reset (ATA 8.37).
    pub const KEEP_SETTINGS: u8 = 0x66;
    /// SET FEATURES: write cache off.
    pub const CACHE_OFF: u8 = 0x82;
    /// DATA SET MANAGEMENT: TRIM.
    pub const TRIM: u8 = 0x01;
}

/// The transfer mode "multiword DMA", with the mode's number in its low bits (ATA table 49).
pub const MULTIWORD_DMA: u8 = 0x20;

/// LBA mid and high after a reset: who is there (ATA 9.12).
pub mod signature {
    /// A disk.
    pub const DISK: (u8, u8) = (0x00, 0x00);
    /// A packet device.
    pub const PACKET: (u8, u8) = (0x14, 0xeb);
}

/// An entry of the bus master's table: a region of memory (BM 1.2).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Region {
    /// Physical address, even.
    pub addr: U32,
    /// Bytes, even; 0 for 65,536.
    pub count: U16,
    /// [`LAST`] or 0.
    pub flags: U16,
}

const _: () = assert!(size_of::<Region>() == 8);
const _: () = assert!(core::mem::offset_of!(Region, count) == 4 && core::mem::offset_of!(Region, flags) == 6);

/// The region is the table's last.
pub const LAST: u16 = 0x8000;
/// No region, and no table, crosses a multiple of this.
pub const BOUNDARY: u64 = 1 << 16;

/// A range of DATA SET MANAGEMENT: 48 bits of LBA and 16 bits of length (ACS-2 table 14).
pub const fn trim_range(lba: u64, blocks: u16) -> u64 {
    lba & 0xffff_ffff_ffff | (blocks as u64) << 48
}

/// Traditional places of the two channels: command block, control register, interrupt (PCI IDE 1.0, 2.1).
pub const LEGACY: [(u16, u16, u32); 2] = [(0x1f0, 0x3f6, 14), (0x170, 0x376, 15)];

/// PCI class and subclass of an IDE controller, and the bits of its programming interface (PCI IDE 1.0, 2.3).
pub mod class {
    /// Mass storage, IDE.
    pub const IDE: (u8, u8) = (0x01, 0x01);
    /// Channel `n` is in native mode: bit `2 n`.
    pub const fn native(interface: u8, channel: u8) -> bool {
        interface & (1 << (2 * channel)) != 0
    }
    /// There is a bus master.
    pub const BUS_MASTER: u8 = 0x80;
}

/// PIIX: the timing registers, in whose highest bit decoding of a channel's ports is switched on (82371AB 4.1.10).
pub mod piix {
    /// Intel.
    pub const VENDOR: u16 = 0x8086;
    /// PIIX, PIIX3, PIIX4 and PIIX4E.
    pub const DEVICES: [u16; 3] = [0x1230, 0x7010, 0x7111];
    /// IDETIM of the primary channel; the secondary's comes 2 bytes later.
    pub const TIMING: u16 = 0x40;
    /// The channel's ports are decoded.
    pub const DECODE: u16 = 0x8000;
}
