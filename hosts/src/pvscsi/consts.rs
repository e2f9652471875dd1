//! The interface's numbers, written down again: nothing is shared with the driver but the source.

pub const VENDOR: u16 = 0x15ad;
pub const DEVICE: u16 = 0x07c0;
pub const BAR_LEN: u64 = 0x8000;
pub const MSIX_TABLE: u64 = 0x6000;
pub const MSIX_PENDING: u64 = 0x1000;

pub mod register {
    pub const COMMAND: u64 = 0x0000;
    pub const COMMAND_DATA: u64 = 0x0004;
    pub const COMMAND_STATUS: u64 = 0x0008;
    pub const LAST_STATUS: u64 = 0x0100;
    pub const LAST_STATUS_END: u64 = 0x0110;
    pub const INTR_STATUS: u64 = 0x100c;
    pub const INTR_MASK: u64 = 0x2010;
    pub const KICK_NON_RW: u64 = 0x3014;
    pub const DEBUG: u64 = 0x3018;
    pub const KICK_RW: u64 = 0x4018;
}

pub mod command {
    pub const ADAPTER_RESET: u32 = 1;
    pub const SETUP_RINGS: u32 = 3;
    pub const RESET_BUS: u32 = 4;
    pub const RESET_DEVICE: u32 = 5;
    pub const ABORT: u32 = 6;
    pub const CONFIG: u32 = 7;
    pub const SETUP_MSG_RING: u32 = 8;
    pub const UNPLUG: u32 = 9;
    pub const SETUP_REQ_CALL: u32 = 10;
    pub const MAX_TARGETS: u32 = 11;
}

pub mod status {
    pub const DONE: u32 = 0;
    pub const FAILED: u32 = u32::MAX;
    pub const MORE_DATA: u32 = u32::MAX - 1;
}

pub mod intr {
    pub const COMPLETION: u32 = 1;
    pub const MESSAGE: u32 = 4;
    pub const ALL: u32 = 0xf;
}

pub mod host {
    pub const SUCCESS: u16 = 0x00;
    pub const UNDERRUN: u16 = 0x0c;
    pub const SELECTION_TIMEOUT: u16 = 0x11;
    pub const DATA_RUN: u16 = 0x12;
    pub const BAD_MESSAGE: u16 = 0x1d;
    pub const BUS_RESET: u16 = 0x25;
    pub const ABORT_QUEUE: u16 = 0x26;
}

pub mod flag {
    pub const SG_LIST: u32 = 1 << 0;
    pub const OUT_OF_BAND_CDB: u32 = 1 << 1;
    pub const NONE: u32 = 1 << 2;
    pub const TO_HOST: u32 = 1 << 3;
    pub const TO_DEVICE: u32 = 1 << 4;
}
