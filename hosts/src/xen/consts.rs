//! Numbers of the interface, from Xen's public headers.

/// `xen.h`, `errno.h`.
pub(super) const SELF: u16 = 0x7ff0;
/// Where the back ends live.
pub(super) const BACKEND: u16 = 0;
pub(super) const PAGE: u64 = 4096;

pub(super) mod call {
    pub const MEMORY: u32 = 12;
    pub const VERSION: u32 = 17;
    pub const GRANT_TABLE: u32 = 20;
    pub const EVENT_CHANNEL: u32 = 32;
    pub const HVM: u32 = 34;
}

pub(super) mod errno {
    pub const ENOENT: i64 = -2;
    pub const EINVAL: i64 = -22;
    pub const ENOSPC: i64 = -28;
    pub const ENOSYS: i64 = -38;
}

/// `event_channel.h`.
pub(super) mod event {
    pub const BIND_VIRQ: u32 = 1;
    pub const BIND_IPI: u32 = 7;
    pub const CLOSE: u32 = 3;
    pub const SEND: u32 = 4;
    pub const ALLOC_UNBOUND: u32 = 6;
    pub const BIND_VCPU: u32 = 8;
    pub const UNMASK: u32 = 9;
    /// Ports of the two-level interface, for a guest of 64 bits.
    pub const PORTS: u32 = 4096;
}

/// `struct shared_info` and `struct vcpu_info`, for a guest of 64 bits.
pub(super) mod shared {
    pub const VCPU_SIZE: u64 = 64;
    pub const UPCALL_PENDING: u64 = 0;
    pub const PENDING_SEL: u64 = 8;
    pub const PENDING: u64 = 32 * VCPU_SIZE;
    pub const MASK: u64 = PENDING + 512;
}

/// `vcpu.h`.
pub(super) mod vcpu {
    pub const STOP_PERIODIC: u32 = 7;
    pub const SET_SINGLESHOT: u32 = 8;
    pub const STOP_SINGLESHOT: u32 = 9;
    /// In the flags: an error for a time that has passed.
    pub const FUTURE: u32 = 1;
    pub const VIRQ_TIMER: u32 = 0;
    pub const ETIME: i64 = -62;
}

/// `memory.h`.
pub(super) mod memory {
    pub const ADD_TO_PHYSMAP: u32 = 7;
    pub const SPACE_SHARED_INFO: u32 = 0;
    pub const SPACE_GRANT_TABLE: u32 = 1;
}

/// `grant_table.h`, version 1.
pub(super) mod grant {
    pub const QUERY_SIZE: u32 = 6;
    pub const SET_VERSION: u32 = 8;
    pub const GET_VERSION: u32 = 10;
    pub const ENTRY: u32 = 8;
    pub const PERMIT: u16 = 1;
    pub const TYPE: u16 = 3;
    pub const READ_ONLY: u16 = 1 << 2;
    pub const READING: u16 = 1 << 3;
    pub const WRITING: u16 = 1 << 4;
}

/// `hvm/hvm_op.h`, `hvm/params.h`.
pub(super) mod hvm {
    pub const SET_PARAM: u32 = 0;
    pub const GET_PARAM: u32 = 1;
    pub const SET_UPCALL_VECTOR: u32 = 23;
    pub const STORE_PFN: u32 = 1;
    pub const STORE_PORT: u32 = 2;
}

/// `io/xs_wire.h`.
pub(super) mod store {
    pub const DIRECTORY: u32 = 1;
    pub const READ: u32 = 2;
    pub const WATCH: u32 = 4;
    pub const UNWATCH: u32 = 5;
    pub const TRANSACTION_START: u32 = 6;
    pub const TRANSACTION_END: u32 = 7;
    pub const GET_DOMAIN_PATH: u32 = 10;
    pub const WRITE: u32 = 11;
    pub const MKDIR: u32 = 12;
    pub const RM: u32 = 13;
    pub const WATCH_EVENT: u32 = 15;
    pub const ERROR: u32 = 16;
    pub const RESET_WATCHES: u32 = 21;
    pub const DIRECTORY_PART: u32 = 22;
    pub const PAYLOAD: usize = 4096;
    pub const HEADER: usize = 16;
    pub const RING: u32 = 1024;
    pub const REQ: u64 = 0;
    pub const RSP: u64 = 1024;
    pub const REQ_CONS: u64 = 2048;
    pub const REQ_PROD: u64 = 2052;
    pub const RSP_CONS: u64 = 2056;
    pub const RSP_PROD: u64 = 2060;
}

/// `io/blkif.h`, `io/ring.h`.
pub(super) mod blkif {
    pub const REQ_PROD: usize = 0;
    pub const REQ_EVENT: usize = 4;
    pub const RSP_PROD: usize = 8;
    pub const RSP_EVENT: usize = 12;
    pub const HEADER: usize = 64;
    pub const SLOT: usize = 112;
    pub const READ: u8 = 0;
    pub const WRITE: u8 = 1;
    pub const BARRIER: u8 = 2;
    pub const FLUSH: u8 = 3;
    pub const DISCARD: u8 = 5;
    pub const INDIRECT: u8 = 6;
    pub const SEGMENTS: usize = 11;
    pub const INDIRECT_PAGES: usize = 8;
    pub const OKAY: i16 = 0;
    pub const ERROR: i16 = -1;
    pub const EOPNOTSUPP: i16 = -2;
}

/// `io/xenbus.h`.
pub(super) mod state {
    pub const UNKNOWN: u64 = 0;
    pub const INITIALISING: u64 = 1;
    pub const INIT_WAIT: u64 = 2;
    pub const INITIALISED: u64 = 3;
    pub const CONNECTED: u64 = 4;
    pub const CLOSING: u64 = 5;
    pub const CLOSED: u64 = 6;
}
