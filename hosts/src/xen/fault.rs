//! What can go wrong, and how hosts differ.

use crate::Script;
use crate::virtio::Order;

/// What goes wrong with a disk's request, or with the answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Completes after this much time, in nanoseconds.
    Delay(u64),
    /// Completes after this many later requests did (or after a millisecond, if they do not come).
    Behind(u32),
    /// Never answers.
    Never,
    /// Performs nothing and answers this status.
    Status(i16),
    /// Performs it and answers this status.
    SaysStatus(i16),
    /// Answers another id.
    Id(u64),
    /// Answers an id with these bits changed: a slot, a generation or a queue that is not the request's.
    IdBits(u64),
    /// Answers the id of the request that was answered before.
    StaleId,
    /// Answers twice.
    Duplicate,
    /// Answers another operation.
    Operation(u8),
    /// Says that this many more responses are there than there are; from then on the ring is of no use.
    Producer(u32),
    /// No notification although one is due.
    NoEvent,
    /// The notification comes after this many nanoseconds.
    LateEvent(u64),
    /// A notification when it takes the request.
    Spurious,
    /// Writes to the pages of a read once more, after it has answered. Within its rights as long as they are granted.
    TouchesLate,
}

/// What goes wrong with a message of xenstore's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// Comes after this many nanoseconds, and holds up what follows.
    Delay(u64),
    /// Never comes.
    Drop,
    /// Comes twice.
    Twice,
    /// Comes as another type.
    Kind(u32),
    /// Is a reply to another request.
    Request(u32),
    /// Says that so many bytes follow.
    Length(u32),
    /// Comes with so many bytes at most, and says so.
    Truncate(u16),
    /// Comes with other bytes in it: all of this value.
    Garbage(u8),
    /// This error comes instead, with nothing done.
    Refused(&'static str),
    /// The request is not performed at all, and answered with EAGAIN.
    Again,
    /// An event of no watch comes first: with this token.
    StrayEvent(&'static str),
    /// A reply that nobody waits for comes first.
    StrayReply,
    /// Comes byte by byte.
    Bytewise,
    /// No notification that it came.
    NoEvent,
    /// The producer index jumps by this much. From then on the ring is of no use.
    Producer(u32),
}

/// What happens after a step. Each request that xenstore takes and each request that a disk takes is a step, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The back end of this disk says that it is in this state, without more.
    Says(usize, u64),
    /// The tool stack takes the disk out: its back end wants to close, and is gone once both ends have closed.
    Detach(usize),
    /// The back end dies: what it has mapped it lets go, what it has taken is never answered, what it said stays.
    Kill(usize),
    /// The back end dies, and another one begins in its place.
    Restart(usize),
    /// The back end closes by itself, and begins again when the guest has closed, too.
    Close(usize),
    /// Back end and front end disappear from xenstore, without a word, and what was mapped is let go.
    Vanish(usize),
    /// The disk changes its size to this many sectors of 512 bytes.
    Resize(usize, u64),
    /// All event channels of the guest's that lead to the disk are notified.
    Notify(usize),
    /// All watches fire.
    FireWatches,
}

/// How a host deviates from the plain one. All are within the interface.
#[derive(Debug, Clone)]
pub struct Knobs {
    /// Completion order.
    pub order: Order,
    /// Frames of the grant table at most.
    pub grant_frames: u32,
    /// So many transactions at first end with EAGAIN.
    pub transactions_fail: u32,
    /// An indirect request is answered as what it came, not as what it does.
    pub answers_indirect: bool,
    /// Operations that are offered and refused all the same.
    pub refuses: &'static [u8],
    /// Nanoseconds that each step of a back end's coming and going takes.
    pub state_delay: u64,
    /// Nanoseconds for which a back end that dies keeps what it has mapped, and writes to it.
    pub lingers: u64,
    /// Event channels of the guest at most.
    pub ports: u32,
    /// References that a back end keeps mapped at most, of each ring; further ones are mapped for each request.
    pub persistent_most: usize,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            order: Order::Fifo,
            grant_frames: 64,
            transactions_fail: 0,
            answers_indirect: false,
            refuses: &[],
            state_delay: 0,
            lingers: 0,
            ports: 1023,
            persistent_most: 1056,
        }
    }
}

/// What goes wrong when.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// By request taken from a disk's ring.
    pub requests: Script<Fault>,
    /// By request that xenstore takes.
    pub replies: Script<StoreFault>,
    /// By step.
    pub events: Script<Event>,
    /// By notification of the host's: comes after this many nanoseconds; `u64::MAX`: never.
    pub notifications: Script<u64>,
}
