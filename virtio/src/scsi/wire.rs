//! The SCSI host device's numbers and layouts (virtio 1.2, 5.6). Types and constants only.

use core::mem::offset_of;

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

bitflags! {
    /// Feature bits (5.6.3).
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ScsiFeatures: u64 {
        /// A command may move data both ways.
        const INOUT = 1 << 0;
        /// Units that come and go are reported.
        const HOTPLUG = 1 << 1;
        /// Units that change are reported.
        const CHANGE = 1 << 2;
        const _ = !0;
    }
}

/// Queue numbers (5.6.2).
pub mod queue {
    /// Task management.
    pub const CONTROL: u16 = 0;
    /// Events.
    pub const EVENT: u16 = 1;
    /// The first request queue.
    pub const REQUEST: u16 = 2;
}

/// Offsets in the configuration (5.6.4), in bytes.
pub mod config {
    /// u32: request queues.
    pub const NUM_QUEUES: usize = 0;
    /// u32: segments of a command's data at most.
    pub const SEG_MAX: usize = 4;
    /// u32: sectors of 512 bytes that a command should move at most.
    pub const MAX_SECTORS: usize = 8;
    /// u32: commands that a unit should have at most.
    pub const CMD_PER_LUN: usize = 12;
    /// u32: bytes of an event.
    pub const EVENT_INFO_SIZE: usize = 16;
    /// u32, writable: bytes of sense data.
    pub const SENSE_SIZE: usize = 20;
    /// u32, writable: bytes of a CDB.
    pub const CDB_SIZE: usize = 24;
    /// u16: highest target.
    pub const MAX_TARGET: usize = 30;
    /// u32: highest LUN.
    pub const MAX_LUN: usize = 32;
}

/// Bytes of sense data that the driver asks for, which is the default (5.6.4).
pub const SENSE_SIZE: usize = 96;
/// Bytes of a CDB in a request, which is the default (5.6.4).
pub const CDB_SIZE: usize = 32;
/// Bytes of a CDB that the driver writes; the rest of the field stays zero.
pub const CDB_USED: usize = 16;

/// The device-readable head of a command (5.6.6.1), as far as its CDB is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommandHead {
    /// The logical unit: 1, target, two bytes of a single-level LUN structure, zeroes.
    pub lun: [u8; 8],
    /// Names the command while it is in flight.
    pub id: U64,
    /// Task attribute: 0 is SIMPLE.
    pub task_attribute: u8,
    /// Priority.
    pub priority: u8,
    /// Command reference number.
    pub crn: u8,
    /// The command descriptor block.
    pub cdb: [u8; CDB_USED],
}

/// Bytes of the whole head: the CDB's field is longer than what is used of it.
pub const COMMAND_HEAD_BYTES: usize = 19 + CDB_SIZE;

const _: () = assert!(offset_of!(CommandHead, id) == 8 && offset_of!(CommandHead, task_attribute) == 16);
const _: () = assert!(offset_of!(CommandHead, cdb) == 19 && size_of::<CommandHead>() == 35);
const _: () = assert!(COMMAND_HEAD_BYTES == 51);

/// The device-writable head of a command's answer (5.6.6.1); the sense data follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommandAnswer {
    /// Bytes of sense data.
    pub sense_len: U32,
    /// Bytes not moved.
    pub residual: U32,
    /// Status qualifier.
    pub status_qualifier: U16,
    /// SCSI status.
    pub status: u8,
    /// [`ResponseCode`].
    pub response: u8,
}

const _: () = assert!(offset_of!(CommandAnswer, status) == 10 && offset_of!(CommandAnswer, response) == 11);
const _: () = assert!(size_of::<CommandAnswer>() == 12);

/// Bytes of the whole answer.
pub const ANSWER_BYTES: usize = size_of::<CommandAnswer>() + SENSE_SIZE;

/// The transport's answer (5.6.6.1). Open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct ResponseCode(pub u8);

impl ResponseCode {
    /// The device answered; the status is valid.
    pub const OK: Self = Self(0);
    /// More data than room.
    pub const OVERRUN: Self = Self(1);
    /// Aborted.
    pub const ABORTED: Self = Self(2);
    /// No such target or unit.
    pub const BAD_TARGET: Self = Self(3);
    /// Reset.
    pub const RESET: Self = Self(4);
    /// No resources now.
    pub const BUSY: Self = Self(5);
    /// The way there failed.
    pub const TRANSPORT_FAILURE: Self = Self(6);
    /// The target failed.
    pub const TARGET_FAILURE: Self = Self(7);
    /// This path failed.
    pub const NEXUS_FAILURE: Self = Self(8);
    /// Something failed.
    pub const FAILURE: Self = Self(9);
    /// To task management: done, with something to end.
    pub const FUNCTION_SUCCEEDED: Self = Self(10);
    /// To task management: the device does not do this.
    pub const FUNCTION_REJECTED: Self = Self(11);
    /// To task management: there is no such unit.
    pub const INCORRECT_LUN: Self = Self(12);
    /// No device writes this: what the driver puts there to see whether one wrote anything.
    pub const UNTOUCHED: Self = Self(0xff);
}

/// A request for task management, on the control queue (5.6.6.2). Its answer is one [`ResponseCode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ManagementRequest {
    /// Zero: task management.
    pub kind: U32,
    /// What to do.
    pub function: ManagementFunction,
    /// The logical unit, as in a command.
    pub lun: [u8; 8],
    /// The command that is meant, where one is.
    pub id: U64,
}

const _: () = assert!(size_of::<ManagementRequest>() == 24 && offset_of!(ManagementRequest, lun) == 8);
const _: () = assert!(offset_of!(ManagementRequest, function) == 4 && offset_of!(ManagementRequest, id) == 16);

/// A task management function (5.6.6.2). Open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct ManagementFunction(pub U32);

impl ManagementFunction {
    /// Ends one command.
    pub const ABORT_TASK: Self = Self(U32::new(0));
    /// Ends all commands of a target's units and resets them.
    pub const I_T_NEXUS_RESET: Self = Self(U32::new(4));
    /// Ends all commands of a unit and resets it.
    pub const LOGICAL_UNIT_RESET: Self = Self(U32::new(5));
}

/// An event (5.6.6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Event {
    /// What happened: [`EventKind`], with [`EVENTS_MISSED`].
    pub event: U32,
    /// Where, as in a command; not always given.
    pub lun: [u8; 8],
    /// Depends on the event.
    pub reason: U32,
}

const _: () = assert!(size_of::<Event>() == 16 && offset_of!(Event, lun) == 4 && offset_of!(Event, reason) == 12);

/// In [`Event::event`]: others were lost for want of buffers.
pub const EVENTS_MISSED: u32 = 1 << 31;

/// What happened. Open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct EventKind(pub u32);

impl EventKind {
    /// Nothing: sent to say that events were lost.
    pub const NONE: Self = Self(0);
    /// A unit or target was reset, came or went, by [`ResetReason`].
    pub const TRANSPORT_RESET: Self = Self(1);
    /// An asynchronous notification.
    pub const ASYNC_NOTIFY: Self = Self(2);
    /// A unit changed: additional sense code and qualifier in the reason's low bytes.
    pub const PARAM_CHANGE: Self = Self(3);
}

/// The reason of a [`EventKind::TRANSPORT_RESET`]. Open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct ResetReason(pub u32);

impl ResetReason {
    /// A reset.
    pub const HARD: Self = Self(0);
    /// Something came.
    pub const RESCAN: Self = Self(1);
    /// Something went.
    pub const REMOVED: Self = Self(2);
}
