//! What the adapter says of a command (`HostBusAdapterStatus`).

/// The adapter's status. Open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct HostStatus(pub u16);

impl HostStatus {
    /// No error of the adapter's.
    pub const SUCCESS: Self = Self(0x00);
    /// No error; part of a chain of commands.
    pub const LINKED_COMPLETED: Self = Self(0x0a);
    /// As before, with a flag.
    pub const LINKED_COMPLETED_FLAG: Self = Self(0x0b);
    /// Less data than room.
    pub const DATA_UNDERRUN: Self = Self(0x0c);
    /// No such target.
    pub const SELECTION_TIMEOUT: Self = Self(0x11);
    /// More or less data than room.
    pub const DATA_RUN: Self = Self(0x12);
    /// The bus became free unexpectedly.
    pub const BUS_FREE: Self = Self(0x13);
    /// The target asked for something out of order.
    pub const INVALID_PHASE: Self = Self(0x14);
    /// Another unit than the first command's of a chain.
    pub const LUN_MISMATCH: Self = Self(0x17);
    /// A field of the request or of its table makes no sense.
    pub const INVALID_PARAMETER: Self = Self(0x1a);
    /// Sense data could not be had.
    pub const SENSE_FAILED: Self = Self(0x1b);
    /// The target rejected the tag.
    pub const TAG_REJECTED: Self = Self(0x1c);
    /// The adapter was sent something it does not know.
    pub const BAD_MESSAGE: Self = Self(0x1d);
    /// The adapter failed.
    pub const ADAPTER_HARDWARE: Self = Self(0x20);
    /// The target did not answer and the bus was reset.
    pub const NO_RESPONSE: Self = Self(0x21);
    /// The adapter reset the bus.
    pub const SENT_RESET: Self = Self(0x22);
    /// Another reset the bus.
    pub const RECEIVED_RESET: Self = Self(0x23);
    /// The target came back without a tag.
    pub const DISCONNECT: Self = Self(0x24);
    /// The unit was reset.
    pub const BUS_RESET: Self = Self(0x25);
    /// Aborted.
    pub const ABORT_QUEUE: Self = Self(0x26);
    /// The adapter's software failed.
    pub const ADAPTER_SOFTWARE: Self = Self(0x27);
    /// The adapter's hardware did not answer in time.
    pub const ADAPTER_TIMEOUT: Self = Self(0x30);
    /// Parity.
    pub const PARITY: Self = Self(0x34);
}
