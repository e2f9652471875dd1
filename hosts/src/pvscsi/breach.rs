//! What a driver did against the interface.

use undercroft_hal::hosted::BadAccess;

/// A breach of the interface by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// Accessed a register other than by 32 aligned bits (its offset).
    AccessWidth(u64),
    /// Read a register that there is not, or that is write-only (its offset).
    NoSuchRead(u64),
    /// Wrote a register that there is not, or that is read-only (its offset).
    NoSuchWrite(u64),
    /// Used the device with bus mastering off.
    NotBusMaster,
    /// Gave a command that no revision of the interface has.
    UnknownCommand(u32),
    /// Wrote a word of a descriptor without a command that takes one.
    DataWithoutCommand,
    /// A descriptor of a command that cannot be: what is wrong.
    Descriptor(&'static str),
    /// Kicked before there were rings.
    KickWithoutRings,
    /// Published more requests than the ring holds.
    RequestsJumped(u32),
    /// Has taken more completions than there were.
    CompletionsJumped(u32),
    /// Has taken more messages than there were.
    MessagesJumped(u32),
    /// Wrote a field of the rings' state that is the device's.
    DevicesField(&'static str),
    /// Has more requests in flight than the completion ring holds.
    CompletionRingFull,
    /// A request whose context is 0 or longer than 32 bits.
    ContextInvalid(u64),
    /// A request whose context another one in flight has.
    ContextInUse(u64),
    /// A request that cannot be: what is wrong.
    Request(&'static str),
    /// A scatter-gather table that cannot be: what is wrong.
    Table(&'static str),
    /// Named memory that no driver holds for DMA, or freed it while the device used it.
    Memory(BadAccess),
}

impl From<BadAccess> for Breach {
    fn from(bad: BadAccess) -> Self {
        Self::Memory(bad)
    }
}
