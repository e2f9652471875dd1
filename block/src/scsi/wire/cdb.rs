//! Command descriptor blocks.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An operation code (SPC-5 annex E.3). Open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct OpCode(pub u8);

impl OpCode {
    /// TEST UNIT READY.
    pub const TEST_UNIT_READY: Self = Self(0x00);
    /// REQUEST SENSE.
    pub const REQUEST_SENSE: Self = Self(0x03);
    /// INQUIRY.
    pub const INQUIRY: Self = Self(0x12);
    /// READ CAPACITY(10).
    pub const READ_CAPACITY_10: Self = Self(0x25);
    /// READ(10).
    pub const READ_10: Self = Self(0x28);
    /// WRITE(10).
    pub const WRITE_10: Self = Self(0x2a);
    /// SYNCHRONIZE CACHE(10).
    pub const SYNCHRONIZE_CACHE_10: Self = Self(0x35);
    /// UNMAP.
    pub const UNMAP: Self = Self(0x42);
    /// MODE SENSE(10).
    pub const MODE_SENSE_10: Self = Self(0x5a);
    /// READ(16).
    pub const READ_16: Self = Self(0x88);
    /// WRITE(16).
    pub const WRITE_16: Self = Self(0x8a);
    /// SYNCHRONIZE CACHE(16).
    pub const SYNCHRONIZE_CACHE_16: Self = Self(0x91);
    /// WRITE SAME(16).
    pub const WRITE_SAME_16: Self = Self(0x93);
    /// SERVICE ACTION IN(16): READ CAPACITY(16), by its service action.
    pub const SERVICE_ACTION_IN_16: Self = Self(0x9e);
    /// REPORT LUNS.
    pub const REPORT_LUNS: Self = Self(0xa0);
}

/// TEST UNIT READY (SPC-5 6.47): six zeroes.
pub const TEST_UNIT_READY: [u8; 6] = [0; 6];

macro_rules! cdb {
    ($(#[$doc:meta])* $name:ident, $len:literal, { $($(#[$fdoc:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }

        const _: () = assert!(size_of::<$name>() == $len);

        impl From<$name> for super::super::Cdb {
            fn from(cdb: $name) -> Self {
                let bytes: [u8; $len] = zerocopy::transmute!(cdb);
                Self::new(bytes)
            }
        }
    };
}

cdb!(
    /// INQUIRY (SPC-5 6.7).
    Inquiry, 6, {
        /// [`OpCode::INQUIRY`].
        op: OpCode,
        /// Bit 0: EVPD.
        evpd: u8,
        /// The page, with EVPD.
        page: u8,
        /// Bytes that the answer may have.
        allocation: U16,
        /// CONTROL.
        control: u8,
    }
);

cdb!(
    /// MODE SENSE(10) (SPC-5 6.14).
    ModeSense10, 10, {
        /// [`OpCode::MODE_SENSE_10`].
        op: OpCode,
        /// Bit 3: DBD, no block descriptors.
        dbd: u8,
        /// Bits 5 to 0: the page; bits 7 and 6: which values (0 for the current ones).
        page: u8,
        /// Subpage.
        subpage: u8,
        /// Reserved.
        reserved: [u8; 3],
        /// Bytes that the answer may have.
        allocation: U16,
        /// CONTROL.
        control: u8,
    }
);

cdb!(
    /// READ CAPACITY(16) (SBC-4 5.20).
    ReadCapacity16, 16, {
        /// [`OpCode::SERVICE_ACTION_IN_16`].
        op: OpCode,
        /// 0x10.
        service_action: u8,
        /// Obsolete.
        lba: U64,
        /// Bytes that the answer may have.
        allocation: U32,
        /// Reserved.
        reserved: u8,
        /// CONTROL.
        control: u8,
    }
);

cdb!(
    /// REPORT LUNS (SPC-5 6.33).
    ReportLuns, 12, {
        /// [`OpCode::REPORT_LUNS`].
        op: OpCode,
        /// Reserved.
        reserved: u8,
        /// 0: all but well-known logical units.
        select: u8,
        /// Reserved.
        reserved2: [u8; 3],
        /// Bytes that the answer may have; at least 16.
        allocation: U32,
        /// Reserved.
        reserved3: u8,
        /// CONTROL.
        control: u8,
    }
);

cdb!(
    /// READ(10), WRITE(10) (SBC-4 5.13, 5.40).
    ReadWrite10, 10, {
        /// [`OpCode::READ_10`] or [`OpCode::WRITE_10`].
        op: OpCode,
        /// [`rw`].
        flags: u8,
        /// First block.
        lba: U32,
        /// Group number.
        group: u8,
        /// Blocks; 0 moves nothing.
        blocks: U16,
        /// CONTROL.
        control: u8,
    }
);

cdb!(
    /// READ(16), WRITE(16) (SBC-4 5.15, 5.42).
    ReadWrite16, 16, {
        /// [`OpCode::READ_16`] or [`OpCode::WRITE_16`].
        op: OpCode,
        /// [`rw`].
        flags: u8,
        /// First block.
        lba: U64,
        /// Blocks; 0 moves nothing.
        blocks: U32,
        /// Group number.
        group: u8,
        /// CONTROL.
        control: u8,
    }
);

/// Flags in byte 1 of READ, WRITE and WRITE SAME.
pub mod rw {
    /// Force unit access.
    pub const FUA: u8 = 0x08;
    /// In WRITE SAME: deallocate where that is possible.
    pub const UNMAP: u8 = 0x08;
}

cdb!(
    /// SYNCHRONIZE CACHE(10) (SBC-4 5.32). Block 0 and count 0: everything.
    SynchronizeCache10, 10, {
        /// [`OpCode::SYNCHRONIZE_CACHE_10`].
        op: OpCode,
        /// Bit 1: IMMED, which would answer before anything is durable: never set.
        flags: u8,
        /// First block.
        lba: U32,
        /// Group number.
        group: u8,
        /// Blocks.
        blocks: U16,
        /// CONTROL.
        control: u8,
    }
);

cdb!(
    /// SYNCHRONIZE CACHE(16) (SBC-4 5.33). Block 0 and count 0: everything.
    SynchronizeCache16, 16, {
        /// [`OpCode::SYNCHRONIZE_CACHE_16`].
        op: OpCode,
        /// As in SYNCHRONIZE CACHE(10).
        flags: u8,
        /// First block.
        lba: U64,
        /// Blocks.
        blocks: U32,
        /// Group number.
        group: u8,
        /// CONTROL.
        control: u8,
    }
);

cdb!(
    /// UNMAP (SBC-4 5.35). Its parameter list is [`UnmapParameters`].
    Unmap, 10, {
        /// [`OpCode::UNMAP`].
        op: OpCode,
        /// Bit 0: ANCHOR.
        flags: u8,
        /// Reserved.
        reserved: [u8; 4],
        /// Group number.
        group: u8,
        /// Bytes of the parameter list.
        parameters: U16,
        /// CONTROL.
        control: u8,
    }
);

/// UNMAP's parameter list with one block descriptor (SBC-4 5.35.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UnmapParameters {
    /// Bytes that follow this field: 22.
    pub data_length: U16,
    /// Bytes of block descriptors: 16.
    pub descriptors_length: U16,
    /// Reserved.
    pub reserved: [u8; 4],
    /// First block.
    pub lba: U64,
    /// Blocks.
    pub blocks: U32,
    /// Reserved.
    pub reserved2: [u8; 4],
}

const _: () = assert!(size_of::<UnmapParameters>() == 24);

impl UnmapParameters {
    /// Unmaps one range.
    pub const fn one(lba: u64, blocks: u32) -> Self {
        Self {
            data_length: U16::new(22),
            descriptors_length: U16::new(16),
            reserved: [0; 4],
            lba: U64::new(lba),
            blocks: U32::new(blocks),
            reserved2: [0; 4],
        }
    }
}

cdb!(
    /// WRITE SAME(16) (SBC-4 5.51). Its data is one block.
    WriteSame16, 16, {
        /// [`OpCode::WRITE_SAME_16`].
        op: OpCode,
        /// [`rw::UNMAP`].
        flags: u8,
        /// First block.
        lba: U64,
        /// Blocks; 0 may mean all: never sent.
        blocks: U32,
        /// Group number.
        group: u8,
        /// CONTROL.
        control: u8,
    }
);
