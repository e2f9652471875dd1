//! PVSCSI's numbers and layouts. Types and constants only; everything is little endian.
//!
//! Source: the interface as VMware's own drivers for open systems declare it (Linux `drivers/scsi/vmw_pvscsi.h`, FreeBSD
//! `sys/dev/vmware/pvscsi/pvscsi.h`); no other specification is public. The names in parentheses are those of the first.

pub mod rings;
pub mod setup;
mod status;

pub use status::HostStatus;

use bitflags::bitflags;

/// PCI vendor.
pub const VENDOR: u16 = 0x15ad;
/// PCI device.
pub const DEVICE: u16 = 0x07c0;

/// Bytes of a page: the unit in which memory is named to the device.
pub const PAGE: usize = 4096;
/// Bytes of the registers (`PVSCSI_MEM_SPACE_SIZE`): a memory BAR of at least this length is the one.
pub const REGISTER_BYTES: usize = 8 * PAGE;

/// Register offsets, in bytes; each is 32 bits wide (`PVSCSIRegOffset`).
pub mod register {
    /// Write: the number of a command.
    pub const COMMAND: usize = 0x0;
    /// Write: the next word of the command's descriptor.
    pub const COMMAND_DATA: usize = 0x4;
    /// Read: what became of the command.
    pub const COMMAND_STATUS: usize = 0x8;
    /// Read: pending interrupts; writing ones clears them.
    pub const INTERRUPT_STATUS: usize = 0x100c;
    /// Write: which interrupts are raised.
    pub const INTERRUPT_MASK: usize = 0x2010;
    /// Write: commands that neither read nor write blocks are in the request ring; the ring is looked at now.
    pub const KICK_OTHER: usize = 0x3014;
    /// Write: commands that read or write blocks are in the request ring.
    pub const KICK_READ_WRITE: usize = 0x4018;
}

/// The number of a command (`PVSCSICommands`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct CommandCode(pub u32);

impl CommandCode {
    /// Ends everything and forgets the rings. No descriptor.
    pub const ADAPTER_RESET: Self = Self(1);
    /// Names the rings: [`setup::SetupRings`].
    pub const SETUP_RINGS: Self = Self(3);
    /// Ends every command on the bus. No descriptor.
    pub const RESET_BUS: Self = Self(4);
    /// Ends every command of a unit: [`setup::ResetDevice`].
    pub const RESET_DEVICE: Self = Self(5);
    /// Ends a command: [`setup::AbortCommand`].
    pub const ABORT_COMMAND: Self = Self(6);
    /// Names the message ring: [`setup::SetupMessageRing`]. Not in the first revision.
    pub const SETUP_MESSAGE_RING: Self = Self(8);
    /// Turns the request-call threshold on: [`setup::SetupRequestCall`]. Not in early revisions.
    pub const SETUP_REQUEST_CALL: Self = Self(10);
    /// The status is how many targets there may be. No descriptor. Not in early revisions.
    pub const GET_MAX_TARGETS: Self = Self(11);
}

/// In [`register::COMMAND_STATUS`]: the device does not know the command, or it failed.
pub const COMMAND_FAILED: u32 = u32::MAX;

bitflags! {
    /// Interrupts, in [`register::INTERRUPT_STATUS`] and [`register::INTERRUPT_MASK`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Interrupt: u32 {
        /// Completions (`PVSCSI_INTR_CMPL_0`).
        const COMPLETION_0 = 1 << 0;
        /// Completions (`PVSCSI_INTR_CMPL_1`).
        const COMPLETION_1 = 1 << 1;
        /// Messages (`PVSCSI_INTR_MSG_0`).
        const MESSAGE_0 = 1 << 2;
        /// Messages (`PVSCSI_INTR_MSG_1`).
        const MESSAGE_1 = 1 << 3;
        /// All of completions.
        const COMPLETIONS = Self::COMPLETION_0.bits() | Self::COMPLETION_1.bits();
        /// All of messages.
        const MESSAGES = Self::MESSAGE_0.bits() | Self::MESSAGE_1.bits();
    }
}
