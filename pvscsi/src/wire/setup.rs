//! Descriptors of commands, written word by word into a register.

use core::mem::offset_of;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes};

/// Pages of the request ring, and of the completion ring, at most (`PVSCSI_SETUP_RINGS_MAX_NUM_PAGES`).
pub const MAX_RING_PAGES: usize = 32;
/// Pages of the message ring at most (`PVSCSI_SETUP_MSG_RING_MAX_NUM_PAGES`).
pub const MAX_MESSAGE_PAGES: usize = 16;

/// Names the rings by page numbers (`PVSCSICmdDescSetupRings`). The numbers of pages are powers of two.
#[derive(Debug, Clone, Copy, IntoBytes, FromZeros, Immutable)]
#[repr(C)]
pub struct SetupRings {
    /// Pages of the request ring.
    pub request_pages: U32,
    /// Pages of the completion ring.
    pub completion_pages: U32,
    /// The page of the rings' state.
    pub state_page: U64,
    /// The request ring's pages.
    pub request: [U64; MAX_RING_PAGES],
    /// The completion ring's pages.
    pub completion: [U64; MAX_RING_PAGES],
}

const _: () = assert!(size_of::<SetupRings>() == 528 && offset_of!(SetupRings, state_page) == 8);
const _: () = assert!(offset_of!(SetupRings, request) == 16 && offset_of!(SetupRings, completion) == 272);

/// Names the message ring (`PVSCSICmdDescSetupMsgRing`). Comes after [`SetupRings`].
#[derive(Debug, Clone, Copy, IntoBytes, FromZeros, Immutable)]
#[repr(C)]
pub struct SetupMessageRing {
    /// Its pages, a power of two.
    pub pages: U32,
    /// Zero.
    pub reserved: U32,
    /// The pages.
    pub ring: [U64; MAX_MESSAGE_PAGES],
}

const _: () = assert!(size_of::<SetupMessageRing>() == 136 && offset_of!(SetupMessageRing, ring) == 8);

/// Resets a unit (`PVSCSICmdDescResetDevice`).
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
pub struct ResetDevice {
    /// The target.
    pub target: U32,
    /// The unit.
    pub lun: [u8; 8],
}

const _: () = assert!(size_of::<ResetDevice>() == 12);

/// Aborts a command (`PVSCSICmdDescAbortCmd`).
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
pub struct AbortCommand {
    /// The context that the command was sent with.
    pub context: U64,
    /// The target that it was sent to.
    pub target: U32,
    /// Zero.
    pub reserved: U32,
}

const _: () = assert!(size_of::<AbortCommand>() == 16);

/// Turns the request-call threshold on or off (`PVSCSICmdDescSetupReqCall`).
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
pub struct SetupRequestCall {
    /// 1 for on.
    pub enable: U32,
}

const _: () = assert!(size_of::<SetupRequestCall>() == 4);
