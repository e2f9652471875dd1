//! Packets of the storage channel (vstor).

use core::fmt;

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::message::wire;

/// What a packet asks for or tells. Open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation(pub u32);

impl Operation {
    /// The end of one.
    pub const COMPLETE_IO: Self = Self(1);
    /// Host: a unit went.
    pub const REMOVE_DEVICE: Self = Self(2);
    /// A SCSI command.
    pub const EXECUTE_SRB: Self = Self(3);
    /// Reset a logical unit.
    pub const RESET_LUN: Self = Self(4);
    /// Reset the adapter.
    pub const RESET_ADAPTER: Self = Self(5);
    /// Reset the bus.
    pub const RESET_BUS: Self = Self(6);
    /// Initialisation begins.
    pub const BEGIN_INITIALIZATION: Self = Self(7);
    /// And ends.
    pub const END_INITIALIZATION: Self = Self(8);
    /// Offers a [`Version`].
    pub const QUERY_PROTOCOL_VERSION: Self = Self(9);
    /// Asks for [`Properties`].
    pub const QUERY_PROPERTIES: Self = Self(10);
    /// Host: units came or went.
    pub const ENUMERATE_BUS: Self = Self(11);
    /// Asks for sub-channels.
    pub const CREATE_SUB_CHANNELS: Self = Self(13);
}

/// A version of the storage protocol: major in the high byte, minor in the low.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16);

impl Version {
    /// Windows 10.
    pub const WIN10: Self = Self(0x0602);
    /// Windows 8.1.
    pub const WIN8_1: Self = Self(0x0600);
    /// Windows 8: longer packets from here on, and sub-channels.
    pub const WIN8: Self = Self(0x0501);
    /// Windows 7: hotplug from here on.
    pub const WIN7: Self = Self(0x0402);
    /// Windows Server 2008.
    pub const WIN6: Self = Self(0x0200);

    /// All, the newest first.
    pub const ALL: [Self; 5] = [Self::WIN10, Self::WIN8_1, Self::WIN8, Self::WIN7, Self::WIN6];

    /// Bytes of a packet.
    pub const fn packet_bytes(self) -> usize {
        if self.0 >= Self::WIN8.0 { PACKET } else { OLD_PACKET }
    }

    /// Bytes of sense data in an answer at most.
    pub const fn sense_bytes(self) -> u8 {
        if self.0 >= Self::WIN8.0 { 0x14 } else { 0x12 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 8, self.0 & 0xff)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes of a packet from [`Version::WIN8`] on.
pub const PACKET: usize = 64;
/// And before.
pub const OLD_PACKET: usize = 48;
/// Flag of a packet: its end is to be told.
pub const WANTS_COMPLETION: u32 = 1;
/// Status: the version is not known.
pub const REVISION_MISMATCH: u32 = 0xc000_0059;
/// Property flag: the device has sub-channels.
pub const MULTI_CHANNEL: u32 = 1;

wire! {
    /// What every packet begins with.
    Head (12) {
        /// [`Operation`].
        operation: U32,
        /// [`WANTS_COMPLETION`].
        flags: U32,
        /// NT status.
        status: U32,
    }
}

impl Head {
    /// A request's beginning.
    pub const fn new(operation: Operation) -> Self {
        Self { operation: U32::new(operation.0), flags: U32::new(WANTS_COMPLETION), status: U32::ZERO }
    }
}

wire! {
    /// The body of [`Operation::EXECUTE_SRB`] and of its end; older versions have the first 36 bytes. Resets use its address.
    Srb (52) {
        /// Its own length.
        length: U16,
        /// [`SrbStatus`].
        srb_status: u8,
        /// The unit's status.
        scsi_status: u8,
        /// Nothing.
        port: u8,
        /// Address: bus.
        path: u8,
        /// Target.
        target: u8,
        /// Logical unit.
        lun: u8,
        /// Bytes of the CDB.
        cdb_length: u8,
        /// Bytes of sense data: room, and then how many there are.
        sense_length: u8,
        /// [`Direction`].
        direction: u8,
        /// Nothing.
        reserved: u8,
        /// Bytes of data: to move, and then moved.
        transfer_length: U32,
        /// The CDB, and then the sense data.
        bytes: [u8; 20],
        /// Nothing.
        reserved2: U16,
        /// A tag, where queueing is asked for.
        queue_tag: u8,
        /// How it is queued.
        queue_action: u8,
        /// [`SrbFlags`].
        flags: U32,
        /// Seconds after which the host gives up.
        timeout: U32,
        /// Nothing.
        sort_key: U32,
    }
}

/// Bytes of [`Srb`] before [`Version::WIN8`].
pub const OLD_SRB: u16 = 36;

/// Which way data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction(pub u8);

impl Direction {
    /// To the unit.
    pub const OUT: Self = Self(0);
    /// From the unit.
    pub const IN: Self = Self(1);
    /// There is none.
    pub const NONE: Self = Self(2);
}

bitflags! {
    /// Flags of an [`Srb`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct SrbFlags: u32 {
        /// No synchronous negotiation: what every guest says.
        const DISABLE_SYNCH_TRANSFER = 8;
        /// Data from the unit.
        const DATA_IN = 0x40;
        /// Data to the unit.
        const DATA_OUT = 0x80;
    }
}

/// The host's word on an SRB: a code in the low six bits. Open.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SrbStatus(pub u8);

impl SrbStatus {
    /// Done.
    pub const SUCCESS: Self = Self(1);
    /// Ended before its time.
    pub const ABORTED: Self = Self(2);
    /// Failed, as the unit's status says.
    pub const ERROR: Self = Self(4);
    /// Not now.
    pub const BUSY: Self = Self(5);
    /// The request is wrong, or the unit says that it is.
    pub const INVALID_REQUEST: Self = Self(6);
    /// No such bus.
    pub const INVALID_PATH: Self = Self(7);
    /// No such unit.
    pub const NO_DEVICE: Self = Self(8);
    /// The unit does not answer.
    pub const TIMEOUT: Self = Self(9);
    /// No such unit.
    pub const SELECTION_TIMEOUT: Self = Self(0xa);
    /// The command's time was over.
    pub const COMMAND_TIMEOUT: Self = Self(0xb);
    /// The bus was reset.
    pub const BUS_RESET: Self = Self(0xe);
    /// The way there failed.
    pub const PARITY_ERROR: Self = Self(0xf);
    /// There is no sense data, though there should be.
    pub const REQUEST_SENSE_FAILED: Self = Self(0x10);
    /// The adapter is gone.
    pub const NO_HBA: Self = Self(0x11);
    /// More data than there is room for, or less.
    pub const DATA_OVERRUN: Self = Self(0x12);
    /// The way there failed.
    pub const UNEXPECTED_BUS_FREE: Self = Self(0x13);
    /// The way there failed.
    pub const PHASE_SEQUENCE_FAILURE: Self = Self(0x14);
    /// Ended by a reset.
    pub const REQUEST_FLUSHED: Self = Self(0x16);
    /// No such unit.
    pub const INVALID_LUN: Self = Self(0x20);
    /// No such target.
    pub const INVALID_TARGET: Self = Self(0x21);
    /// The unit is off.
    pub const NOT_POWERED: Self = Self(0x24);
    /// This path is down.
    pub const LINK_DOWN: Self = Self(0x25);

    const AUTOSENSE: u8 = 0x80;

    /// Without the bits above it.
    pub const fn code(self) -> Self {
        Self(self.0 & 0x3f)
    }

    /// Whether there is sense data.
    pub const fn has_sense(self) -> bool {
        self.0 & Self::AUTOSENSE != 0
    }
}

impl fmt::Debug for SrbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "srb {:#04x}", self.0)
    }
}

wire! {
    /// The body of the answer to [`Operation::QUERY_PROPERTIES`].
    Properties (16) {
        /// Nothing.
        reserved: U32,
        /// Sub-channels at most.
        max_sub_channels: U16,
        /// Nothing.
        reserved2: U16,
        /// [`MULTI_CHANNEL`].
        flags: U32,
        /// Bytes of one transfer at most.
        max_transfer: U32,
    }
}

/// The highest logical unit number that the field carries.
pub const MAX_LUN: u32 = 255;
