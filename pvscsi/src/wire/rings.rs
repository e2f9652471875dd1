//! The rings: their state, their entries, scatter-gather elements.

use core::mem::offset_of;

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::PAGE;

/// The rings' state, which fills the beginning of a page (`PVSCSIRingsState`). Indices run freely and are cut to the ring's size when used.
#[derive(Debug, Clone, Copy, FromBytes, Immutable)]
#[repr(C)]
pub struct RingsState {
    /// Requests published. The driver's.
    pub request_producer: U32,
    /// Requests taken. The device's.
    pub request_consumer: U32,
    /// Entries of the request ring as a power of two. The device's, set by the setup.
    pub request_entries_log2: U32,
    /// Completions published. The device's.
    pub completion_producer: U32,
    /// Completions taken. The driver's.
    pub completion_consumer: U32,
    /// Entries of the completion ring as a power of two. The device's.
    pub completion_entries_log2: U32,
    /// From how many requests not taken on a kick is wanted, if the threshold is on. The device's.
    pub request_call_threshold: U32,
    reserved: [u8; 100],
    /// Messages published. The device's.
    pub message_producer: U32,
    /// Messages taken. The driver's.
    pub message_consumer: U32,
    /// Entries of the message ring as a power of two. The device's.
    pub message_entries_log2: U32,
}

const _: () = assert!(offset_of!(RingsState, completion_producer) == 12 && offset_of!(RingsState, reserved) == 28);
const _: () = assert!(offset_of!(RingsState, message_producer) == 128 && size_of::<RingsState>() == 140);

bitflags! {
    /// Flags of a request.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct RequestFlags: u32 {
        /// The data's address is that of a table of [`SgElement`]s.
        const SG_LIST = 1 << 0;
        /// No data.
        const NO_DATA = 1 << 2;
        /// Data from the device.
        const TO_HOST = 1 << 3;
        /// Data to the device.
        const TO_DEVICE = 1 << 4;
    }
}

/// Simple task attribute, as a SCSI-2 queue tag message.
pub const TAG_SIMPLE: u8 = 0x20;

/// The used part of a request (`PVSCSIRingReqDesc`); the rest of the entry stays zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable)]
#[repr(C)]
pub struct Request {
    /// Names the command while it is in flight: not 0, and the upper half is 0.
    pub context: U64,
    /// Where the data is, or its table.
    pub data_addr: U64,
    /// Bytes of data.
    pub data_len: U64,
    /// Where sense data goes.
    pub sense_addr: U64,
    /// Bytes for sense data.
    pub sense_len: U32,
    /// [`RequestFlags`].
    pub flags: U32,
    /// The command descriptor block.
    pub cdb: [u8; 16],
    /// Bytes of it.
    pub cdb_len: u8,
    /// The unit, as in SAM.
    pub lun: [u8; 8],
    /// Task attribute.
    pub tag: u8,
    /// Bus: 0.
    pub bus: u8,
    /// Target.
    pub target: u8,
    /// The CPU that waits.
    pub cpu: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Bytes of a request's entry.
pub const REQUEST_BYTES: usize = 128;
/// Requests in a page.
pub const REQUESTS_PER_PAGE: usize = PAGE / REQUEST_BYTES;

const _: () = assert!(offset_of!(Request, sense_len) == 32 && offset_of!(Request, cdb) == 40);
const _: () = assert!(offset_of!(Request, cdb_len) == 56 && offset_of!(Request, lun) == 57);
const _: () = assert!(offset_of!(Request, tag) == 65 && offset_of!(Request, target) == 67);
const _: () = assert!(offset_of!(Request, reserved) == 69 && size_of::<Request>() == 72);

/// A completion (`PVSCSIRingCmpDesc`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable)]
#[repr(C)]
pub struct Completion {
    /// The request's context.
    pub context: U64,
    /// Bytes moved. QEMU leaves 0.
    pub data_len: U64,
    /// Bytes of sense data written.
    pub sense_len: U32,
    /// [`HostStatus`](super::HostStatus).
    pub host_status: U16,
    /// The unit's status.
    pub scsi_status: U16,
    reserved: [u8; 8],
}

/// Bytes of a completion.
pub const COMPLETION_BYTES: usize = 32;
/// Completions in a page.
pub const COMPLETIONS_PER_PAGE: usize = PAGE / COMPLETION_BYTES;

const _: () = assert!(offset_of!(Completion, host_status) == 20 && size_of::<Completion>() == COMPLETION_BYTES);

/// The used part of a message that a unit came or went (`PVSCSIMsgDescDevStatusChanged`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable)]
#[repr(C)]
pub struct Message {
    /// [`MessageKind`].
    pub kind: U32,
    /// Bus.
    pub bus: U32,
    /// Target.
    pub target: U32,
    /// Unit.
    pub lun: [u8; 8],
}

/// Bytes of a message's entry.
pub const MESSAGE_BYTES: usize = 128;
/// Messages in a page.
pub const MESSAGES_PER_PAGE: usize = PAGE / MESSAGE_BYTES;

const _: () = assert!(offset_of!(Message, lun) == 12 && size_of::<Message>() == 20);

/// What a message says (`PVSCSIMsgType`). Open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct MessageKind(pub u32);

impl MessageKind {
    /// A unit came.
    pub const ADDED: Self = Self(0);
    /// A unit went.
    pub const REMOVED: Self = Self(1);
}

/// An element of a scatter-gather table (`PVSCSISGElement`). A table is made of segments, each within a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable)]
#[repr(C)]
pub struct SgElement {
    /// Where the data is; or, of a chain, the next segment.
    pub addr: U64,
    /// Bytes of data; 0 of a chain.
    pub len: U32,
    /// [`SG_CHAIN`] or 0.
    pub flags: U32,
}

const _: () = assert!(size_of::<SgElement>() == 16);

/// The element is no data: the table goes on elsewhere (`PVSCSI_SGE_FLAG_CHAIN_ELEMENT`).
pub const SG_CHAIN: u32 = 1 << 0;
/// Elements of a segment at most (`PVSCSI_MAX_NUM_SG_ENTRIES_PER_SEGMENT`).
pub const SG_SEGMENT: usize = 128;
