//! The interface's numbers, written down again: nothing is shared with the driver but the source.

pub const PAGE: u64 = 4096;

/// What a model specific register is.
pub mod msr {
    pub const OS_ID: u32 = 0x4000_0000;
    pub const HYPERCALL: u32 = 0x4000_0001;
    pub const VP_INDEX: u32 = 0x4000_0002;
    pub const REFERENCE_COUNT: u32 = 0x4000_0020;
    pub const REFERENCE_TSC: u32 = 0x4000_0021;
    pub const TSC_HZ: u32 = 0x4000_0022;
    pub const APIC_HZ: u32 = 0x4000_0023;
    pub const SCONTROL: u32 = 0x4000_0080;
    pub const SVERSION: u32 = 0x4000_0081;
    pub const SIEFP: u32 = 0x4000_0082;
    pub const SIMP: u32 = 0x4000_0083;
    pub const EOM: u32 = 0x4000_0084;
    pub const SINT: u32 = 0x4000_0090;
    pub const SINT_LAST: u32 = SINT + 15;
    pub const STIMER: u32 = 0x4000_00b0;
    pub const STIMER_LAST: u32 = STIMER + 7;
}

/// Bits of a SINT register.
pub mod sint {
    pub const MASKED: u64 = 1 << 16;
    pub const AUTO_EOI: u64 = 1 << 17;
    pub const POLLING: u64 = 1 << 18;
    pub const PROXY: u64 = 1 << 20;
    pub const KNOWN: u64 = 0xff | MASKED | AUTO_EOI | POLLING | PROXY;
}

/// Bits of the privilege leaf: EAX, then EBX, then EDX.
pub mod privilege {
    pub const REFERENCE_COUNT: u32 = 1 << 1;
    pub const SYNIC: u32 = 1 << 2;
    pub const TIMERS: u32 = 1 << 3;
    pub const HYPERCALLS: u32 = 1 << 5;
    pub const VP_INDEX: u32 = 1 << 6;
    pub const REFERENCE_TSC: u32 = 1 << 9;
    pub const FREQUENCIES: u32 = 1 << 11;
    pub const POST: u32 = 1 << 4;
    pub const SIGNAL: u32 = 1 << 5;
    pub const TELLS_FREQUENCIES: u32 = 1 << 8;
    pub const POLLING: u32 = 1 << 17;
    pub const DIRECT_TIMERS: u32 = 1 << 19;
}

/// Hypercalls and their statuses.
pub mod call {
    pub const POST: u16 = 0x5c;
    pub const SIGNAL: u16 = 0x5d;
    pub const FAST: u64 = 1 << 16;

    pub const OK: u16 = 0;
    pub const BAD_CODE: u16 = 2;
    pub const BAD_INPUT: u16 = 3;
    pub const ALIGNMENT: u16 = 4;
    pub const PARAMETER: u16 = 5;
    pub const INVALID_CONNECTION: u16 = 0x12;
}

/// Types in a message slot.
pub mod slot {
    pub const VMBUS: u32 = 1;
    pub const TIMER: u32 = 0x8000_0010;
    /// Payload of a slot, and of a posted message.
    pub const PAYLOAD: usize = 240;
}

/// VMBus messages.
pub mod message {
    pub const OFFER: u32 = 1;
    pub const RESCIND: u32 = 2;
    pub const REQUEST_OFFERS: u32 = 3;
    pub const ALL_OFFERS: u32 = 4;
    pub const OPEN: u32 = 5;
    pub const OPEN_RESULT: u32 = 6;
    pub const CLOSE: u32 = 7;
    pub const GPADL_HEADER: u32 = 8;
    pub const GPADL_BODY: u32 = 9;
    pub const GPADL_CREATED: u32 = 10;
    pub const TEARDOWN: u32 = 11;
    pub const TORNDOWN: u32 = 12;
    pub const RELID_RELEASED: u32 = 13;
    pub const CONTACT: u32 = 14;
    pub const VERSION: u32 = 15;
    pub const UNLOAD: u32 = 16;
    pub const UNLOADED: u32 = 17;
    pub const MODIFY: u32 = 22;
    pub const MODIFIED: u32 = 24;
}

/// Features that a connection of version 6.0 may have.
pub mod feature {
    pub const SIGNAL_PARAMETERS: u32 = 1;
    pub const REDIRECTION: u32 = 2;
    pub const CLIENT_ID: u32 = 8;
}

/// Types of ring packets.
pub mod packet {
    pub const IN_BAND: u16 = 6;
    pub const GPA_DIRECT: u16 = 9;
    pub const COMPLETION: u16 = 0xb;
}

/// StorVSP operations.
pub mod stor {
    pub const REMOVE: u32 = 2;
    pub const EXECUTE: u32 = 3;
    pub const RESET_LUN: u32 = 4;
    pub const RESET_ADAPTER: u32 = 5;
    pub const RESET_BUS: u32 = 6;
    pub const BEGIN_INIT: u32 = 7;
    pub const END_INIT: u32 = 8;
    pub const QUERY_VERSION: u32 = 9;
    pub const QUERY_PROPERTIES: u32 = 10;
    pub const ENUMERATE: u32 = 11;
    pub const SUB_CHANNELS: u32 = 13;
}

/// NT status codes.
pub mod nt {
    pub const OK: u32 = 0;
    pub const BUFFER_OVERFLOW: u32 = 0x8000_0005;
    pub const BUSY: u32 = 0x8000_0011;
    pub const UNSUCCESSFUL: u32 = 0xc000_0001;
    pub const INVALID_PARAMETER: u32 = 0xc000_000d;
    pub const INVALID_REQUEST: u32 = 0xc000_0010;
    pub const REVISION: u32 = 0xc000_0059;
    pub const NOT_CONNECTED: u32 = 0xc000_009d;
    pub const TIMEOUT: u32 = 0xc000_00b5;
    pub const NO_DEVICE: u32 = 0xc000_00c0;
    pub const CANCELLED: u32 = 0xc000_0120;
    pub const INVALID_STATE: u32 = 0xc000_0184;
    pub const IO_ERROR: u32 = 0xc000_0185;
}

/// SRB statuses, and the bits beside the code.
pub mod srb {
    pub const SUCCESS: u8 = 1;
    pub const ABORTED: u8 = 2;
    pub const ERROR: u8 = 4;
    pub const BUSY: u8 = 5;
    pub const INVALID_REQUEST: u8 = 6;
    pub const INVALID_LUN: u8 = 0x20;
    pub const AUTOSENSE: u8 = 0x80;
}

/// SRB flags.
pub mod srb_flag {
    pub const NO_AUTOSENSE: u32 = 0x20;
    pub const IN: u32 = 0x40;
    pub const OUT: u32 = 0x80;
}

/// Interface GUIDs, as they lie in memory.
pub mod guid {
    pub const SCSI: [u8; 16] =
        [0xd9, 0x63, 0x61, 0xba, 0xa1, 0x04, 0x29, 0x4d, 0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f];
    pub const IDE: [u8; 16] =
        [0x32, 0x26, 0x41, 0x32, 0xcb, 0x86, 0xa2, 0x44, 0x9b, 0x5c, 0x50, 0xd1, 0x41, 0x73, 0x54, 0xf5];
    /// A network card's: something that a storage driver leaves alone.
    pub const NETWORK: [u8; 16] =
        [0x63, 0x51, 0x61, 0xf8, 0x3e, 0xdf, 0xc5, 0x46, 0x91, 0x3f, 0xf2, 0xd2, 0xf9, 0x65, 0xed, 0x0e];
}
