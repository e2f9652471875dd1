//! The structures of hypercalls and of shared pages. Types and constants only; all little-endian, as the guest is.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Numbers of hypercalls (`public/xen.h`).
pub mod call {
    pub const MEMORY: u32 = 12;
    pub const GRANT_TABLE: u32 = 20;
    pub const EVENT_CHANNEL: u32 = 32;
    pub const HVM: u32 = 34;
}

/// The calling domain (`DOMID_SELF`).
pub const MYSELF: u16 = 0x7FF0;

/// Commands of `event_channel_op` (`public/event_channel.h`).
pub mod event {
    pub const CLOSE: u32 = 3;
    pub const SEND: u32 = 4;
    pub const ALLOCATE_UNBOUND: u32 = 6;
    pub const BIND_VCPU: u32 = 8;
    pub const UNMASK: u32 = 9;
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AllocateUnbound {
    pub domain: u16,
    pub remote: u16,
    pub port: u32,
}

/// Of CLOSE, SEND and UNMASK.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Port {
    pub port: u32,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BindVcpu {
    pub port: u32,
    pub vcpu: u32,
}

/// Commands of `hvm_op` (`public/hvm/hvm_op.h`).
pub mod hvm {
    pub const GET_PARAMETER: u32 = 1;
    pub const SET_UPCALL_VECTOR: u32 = 23;
}

/// Indices of parameters (`public/hvm/params.h`).
pub mod parameter {
    pub const STORE_PAGE: u32 = 1;
    pub const STORE_PORT: u32 = 2;
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Parameter {
    pub domain: u16,
    pub _pad: u16,
    pub index: u32,
    pub value: u64,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UpcallVector {
    pub vcpu: u32,
    pub vector: u8,
    pub _pad: [u8; 3],
}

/// Commands of `memory_op` (`public/memory.h`), and the spaces of `ADD_TO_PHYSMAP`.
pub mod memory {
    pub const ADD_TO_PHYSMAP: u32 = 7;
    pub const SPACE_SHARED_INFO: u32 = 0;
    pub const SPACE_GRANT_TABLE: u32 = 1;
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AddToPhysmap {
    pub domain: u16,
    pub size: u16,
    pub space: u32,
    pub index: u64,
    pub frame: u64,
}

/// Commands of `grant_table_op` (`public/grant_table.h`).
pub mod grant {
    pub const QUERY_SIZE: u32 = 6;
    pub const SET_VERSION: u32 = 8;
}

#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct QuerySize {
    pub domain: u16,
    pub _pad: u16,
    pub frames: u32,
    pub most: u32,
    pub status: i16,
    pub _pad2: u16,
}

/// The shared page (`struct shared_info`): 32 parts of processors, then pending and masked event channels, 64 words of 64 bits each.
pub mod shared {
    pub const VCPUS: usize = 32;
    pub const VCPU_BYTES: usize = 64;
    pub const PENDING: usize = 0x800;
    pub const MASK: usize = 0xA00;
    /// Event channels of the two-level interface.
    pub const PORTS: u32 = 4096;
    /// In a processor's part: one byte that says that something is pending, and which words have something.
    pub const UPCALL_PENDING: usize = 0;
    pub const PENDING_WORDS: usize = 8;
}

/// A grant table of version 1 (`struct grant_entry_v1`): flags, domain, frame.
pub mod entry {
    pub const BYTES: usize = 8;
    pub const PERMIT_ACCESS: u32 = 1;
    pub const READ_ONLY: u32 = 1 << 2;
    /// The other domain reads, or writes, now.
    pub const IN_USE: u32 = 1 << 3 | 1 << 4;
    /// Entries that the tool stack uses for itself, and may.
    pub const RESERVED: u32 = 8;
}

const _: () = assert!(size_of::<Parameter>() == 16 && size_of::<AddToPhysmap>() == 24 && size_of::<QuerySize>() == 16);
