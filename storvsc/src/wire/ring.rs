//! Ring buffers: the control page and the packets.

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::message::wire;

/// Offsets in a ring's control page: where the sender writes next, and the receiver reads next, in bytes of the data area.
pub const IN: usize = 0;
/// See there.
pub const OUT: usize = 4;
/// The receiver wants no signals.
pub const INTERRUPT_MASK: usize = 8;
/// The sender waits for this many free bytes.
pub const PENDING_SEND: usize = 12;
/// Features.
pub const FEATURES: usize = 64;
/// Feature: the sender understands [`PENDING_SEND`].
pub const FEATURE_PENDING_SEND: u32 = 1;

/// What a packet is. Open: a host may send what came later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketType(pub u16);

impl PacketType {
    /// Data in the packet itself.
    pub const IN_BAND: Self = Self(6);
    /// Data in a list of pages.
    pub const GPA_DIRECT: Self = Self(9);
    /// The end of a transaction.
    pub const COMPLETION: Self = Self(0xb);
}

bitflags! {
    /// Flags of a packet.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct PacketFlags: u16 {
        /// The receiver is to complete it.
        const COMPLETION_WANTED = 1;
    }
}

wire! {
    /// What every packet begins with.
    PacketHeader (16) {
        /// [`PacketType`].
        kind: U16,
        /// Where the payload begins, in units of 8 bytes.
        payload: U16,
        /// Length with the payload and without the trailer, in units of 8 bytes.
        length: U16,
        /// [`PacketFlags`].
        flags: U16,
        /// The same in a completion.
        transaction: U64,
    }
}

wire! {
    /// What follows in a packet with a list of pages, up to the page numbers: one range.
    GpaRange (16) {
        /// Nothing.
        reserved: U32,
        /// 1.
        ranges: U32,
        /// Bytes.
        length: U32,
        /// Where they begin in the first page.
        offset: U32,
    }
}

/// Bytes behind a packet: zero, and where it began.
pub const TRAILER: usize = 8;
