//! What a guest did against the interface.

use super::BadGpa;

/// A breach of the interface by the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// Read a register that there is not, or that is write-only.
    NoSuchRead(u32),
    /// Wrote a register that there is not, or that is read-only.
    NoSuchWrite(u32),
    /// Wrote reserved or impossible bits to a register.
    RegisterBits(u32, u64),
    /// Turned the hypercall page on before it said which system it is.
    NoOsId,
    /// Called the hypervisor with the hypercall page off.
    HypercallPageOff,
    /// A hypercall that there is not.
    UnknownHypercall(u16),
    /// Reserved or impossible bits of a hypercall's control word.
    HypercallControl(u64),
    /// Input that is misaligned or crosses a page.
    HypercallInput(u64),
    /// A hypercall's parameters: what is wrong.
    HypercallParameter(&'static str),
    /// Posted to a connection that there is not.
    PostConnection(u32),
    /// Signalled a connection that no open channel has.
    SignalConnection(u32),
    /// An interrupt or message was due and the processor's controller could not take it.
    SynicOff(u32),
    /// Marked a message slot as full by itself.
    SlotWritten(u32),
    /// A message that no version knows, or that this connection's version does not.
    UnknownMessage(u32),
    /// A message of another size than its type has in this version: type and size.
    MessageSize(u32, u32),
    /// A message before a version was agreed.
    BeforeContact(u32),
    /// INITIATE_CONTACT that cannot be: what is wrong.
    Contact(&'static str),
    /// Asked for the offers twice.
    OffersTwice,
    /// Named a channel that was not offered, or is not any more: message type and channel.
    NoSuchChannel(u32, u32),
    /// A message that a channel's state forbids: type and channel.
    ChannelState(u32, u32),
    /// A GPADL that cannot be: what is wrong.
    Gpadl(&'static str),
    /// OPEN_CHANNEL that cannot be: what is wrong.
    Open(&'static str),
    /// Wrote a field of a ring that is the host's: the channel and which.
    HostsField(u32, &'static str),
    /// Published an impossible index or field of its own: the channel and what is wrong.
    Ring(u32, &'static str),
    /// A packet in the ring that cannot be: the channel and what is wrong.
    Packet(u32, &'static str),
    /// A storage request that cannot be: what is wrong.
    Stor(&'static str),
    /// Initialised the storage device out of order: the operation.
    InitOrder(u32),
    /// Used a transaction id that a request in flight has.
    TransactionInUse(u64),
    /// Named memory that is none, or gave it up while the host used it.
    Memory(BadGpa),
}

impl From<BadGpa> for Breach {
    fn from(bad: BadGpa) -> Self {
        Self::Memory(bad)
    }
}

/// What was counted. Nothing in it is a breach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// PostMessage hypercalls, failed ones included.
    pub posts: u64,
    /// SignalEvent hypercalls.
    pub signals: u64,
    /// Of these, those that told nothing: the ring had not been empty, or the host had asked for none.
    pub needless_signals: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Messages put in slots.
    pub messages: u64,
    /// End of message written with no message waiting.
    pub needless_eoms: u64,
    /// Packets taken from guests' rings.
    pub taken: u64,
    /// Packets put in guests' rings.
    pub sent: u64,
    /// Times that a channel was signalled by the host, whether that raised an interrupt or not.
    pub channel_signals: u64,
    /// Times that the host waited for room in a ring.
    pub ring_full: u64,
    /// Steps so far: see [`super::Event`].
    pub steps: u64,
}
