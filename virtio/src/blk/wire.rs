//! The block device's numbers and layouts (virtio 1.2, 5.2). Types and constants only.

use core::mem::offset_of;

use bitflags::bitflags;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

bitflags! {
    /// Feature bits (5.2.3).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct BlkFeatures: u64 {
        /// A segment's size is limited.
        const SIZE_MAX = 1 << 1;
        /// The number of segments is limited.
        const SEG_MAX = 1 << 2;
        /// Read only.
        const RO = 1 << 5;
        /// The block size is given.
        const BLK_SIZE = 1 << 6;
        /// There is a flush command.
        const FLUSH = 1 << 9;
        /// The topology is given.
        const TOPOLOGY = 1 << 10;
        /// The cache can be switched between write-back and write-through.
        const CONFIG_WCE = 1 << 11;
        /// More than one queue.
        const MQ = 1 << 12;
        /// There is a discard command.
        const DISCARD = 1 << 13;
        /// There is a write-zeroes command.
        const WRITE_ZEROES = 1 << 14;
        const _ = !0;
    }
}

/// Bytes of a sector, the unit of every sector number and of the capacity, whatever the block size (5.2.4).
pub const SECTOR: u32 = 512;
/// `SECTOR` as a shift.
pub const SECTOR_SHIFT: u32 = 9;

/// Offsets in the configuration (5.2.4), in bytes.
pub mod config {
    /// u64: sectors.
    pub const CAPACITY: usize = 0;
    /// u32: bytes of a segment at most.
    pub const SIZE_MAX: usize = 8;
    /// u32: segments at most.
    pub const SEG_MAX: usize = 12;
    /// u32: bytes of a logical block.
    pub const BLK_SIZE: usize = 20;
    /// u8: log2 of logical blocks per physical block.
    pub const PHYSICAL_BLOCK_EXP: usize = 24;
    /// u8: whether the cache is write-back.
    pub const WRITEBACK: usize = 32;
    /// u16: queues.
    pub const NUM_QUEUES: usize = 34;
    /// u32: sectors of one discard at most.
    pub const MAX_DISCARD_SECTORS: usize = 36;
    /// u32: sectors of one write-zeroes at most.
    pub const MAX_WRITE_ZEROES_SECTORS: usize = 48;
}

/// What a request asks for (5.2.6). Open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct RequestType(pub U32);

impl RequestType {
    /// Read.
    pub const IN: Self = Self(U32::new(0));
    /// Write.
    pub const OUT: Self = Self(U32::new(1));
    /// Flush.
    pub const FLUSH: Self = Self(U32::new(4));
    /// The device's serial number.
    pub const GET_ID: Self = Self(U32::new(8));
    /// Discard.
    pub const DISCARD: Self = Self(U32::new(11));
    /// Write zeroes.
    pub const WRITE_ZEROES: Self = Self(U32::new(13));
}

/// What every request begins with (5.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// What to do.
    pub kind: RequestType,
    /// Zero.
    pub reserved: U32,
    /// First sector, in units of 512 bytes; zero where it means nothing.
    pub sector: U64,
}

/// The data of discard and write-zeroes (5.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Range {
    /// First sector.
    pub sector: U64,
    /// Sectors.
    pub count: U32,
    /// Bit 0: a write-zeroes may unmap.
    pub flags: U32,
}

const _: () = assert!(size_of::<Header>() == 16 && offset_of!(Header, sector) == 8);
const _: () = assert!(size_of::<Range>() == 16 && offset_of!(Range, count) == 8 && offset_of!(Range, flags) == 12);

/// Bytes of the answer to `GET_ID`: ASCII, filled up with zeroes.
pub const ID_BYTES: usize = 20;

/// The last byte of every request (5.2.6). Open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct RequestStatus(pub u8);

impl RequestStatus {
    /// Done.
    pub const OK: Self = Self(0);
    /// Failed.
    pub const IOERR: Self = Self(1);
    /// The device does not know the request.
    pub const UNSUPP: Self = Self(2);
    /// No device writes this: what the driver puts there to see whether one wrote anything.
    pub const UNTOUCHED: Self = Self(0xff);
}
