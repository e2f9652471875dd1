//! What a guest did against the interface.

use undercroft_hal::hosted::BadAccess;

/// A breach of the interface by the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// A hypercall, or a command of one, that there is not.
    UnknownCall(u32, u32),
    /// A hypercall's structure: what is wrong.
    Argument(&'static str),
    /// Named an event channel that it does not have.
    NoSuchPort(u32),
    /// Two interrupts of a processor have one vector, or a vector that is none.
    Vector(u8),
    /// Changed an entry of the grant table that is the tool stack's.
    ReservedGrant(u32),
    /// Named a reference that it has not granted as is needed: which, and what is wrong.
    Grant(u32, &'static str),
    /// Changed the entry of a reference that is mapped.
    RevokedWhileMapped(u32),
    /// Named memory that is none, or gave it up while it was granted and used.
    Memory(BadAccess),
    /// A message to xenstore that cannot be: what is wrong.
    Store(&'static str),
    /// An index of xenstore's ring that cannot be.
    StoreIndex(u32),
    /// Wrote to xenstore where it may not.
    StoreDenied,
    /// Its end of a device went from one state to another that cannot follow.
    State(u64, u64),
    /// What it told of its rings: what is wrong.
    Rings(&'static str),
    /// Wrote a field of a ring that is the host's: which.
    HostsField(&'static str),
    /// More requests than the ring has places.
    RingOverrun(u32),
    /// A request that cannot be: what is wrong.
    Request(&'static str),
    /// A segment that cannot be: what is wrong.
    Segment(&'static str),
    /// Sectors that the disk has not: the first, and how many.
    OutOfRange(u64, u64),
    /// An operation that was not offered.
    NotOffered(u8),
    /// An id that a request in flight has.
    IdInUse(u64),
}

impl From<BadAccess> for Breach {
    fn from(bad: BadAccess) -> Self {
        Self::Memory(bad)
    }
}

/// What was counted. Nothing in it is a breach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Hypercalls.
    pub calls: u64,
    /// Notifications by the guest.
    pub sends: u64,
    /// Of these, those to a disk's ring that told nothing new.
    pub needless_sends: u64,
    /// Notifications by the host.
    pub events: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Requests to xenstore that were answered.
    pub store_requests: u64,
    /// Watches that fired.
    pub watch_events: u64,
    /// Requests taken from disks' rings.
    pub taken: u64,
    /// Responses put there.
    pub responses: u64,
    /// Indirect requests among them.
    pub indirect: u64,
    /// Grants mapped.
    pub maps: u64,
    /// Transactions that ended with EAGAIN.
    pub again: u64,
    /// Steps so far: see [`super::Event`].
    pub steps: u64,
}

/// Breaches and counts.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub breaches: Vec<Breach>,
    pub counts: Counts,
}

impl Log {
    pub fn breach(&mut self, breach: Breach) {
        self.breaches.push(breach);
    }
}
