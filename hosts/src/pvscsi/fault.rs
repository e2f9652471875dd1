//! What can go wrong: with a request, and standing.

use crate::Script;
use crate::virtio::Order;

/// Something that a device does wrong with a request, or that a good device may do rarely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Completes after this many virtual nanoseconds.
    Delay(u64),
    /// Completes after this many later requests did (or after a virtual millisecond, if they do not come).
    Behind(u32),
    /// Never answers. The buffers stay the device's until it is reset or the request is ended.
    Never,
    /// Performs nothing and answers this adapter status.
    HostStatus(u16),
    /// Performs nothing and answers this SCSI status without sense data (BUSY is 0x08, TASK SET FULL 0x28).
    ScsiStatus(u16),
    /// Performs nothing and answers CHECK CONDITION with this sense key, code and qualifier.
    Sense(u8, u8, u8),
    /// Moves this many bytes less than it should, and says so.
    Short(u32),
    /// Says that it moved this many bytes.
    SaysMoved(u64),
    /// Says that it wrote this many bytes of sense data.
    SaysSense(u32),
    /// Completes it twice.
    Duplicate,
    /// Completes this context instead.
    BadContext(u64),
    /// Completes it under the context of an earlier use of the same slot, if the driver's contexts have a generation in their upper half.
    OldContext,
    /// Completes it under the context of a request that was completed before instead.
    StaleContext,
    /// Says that there are this many completions more than it wrote.
    ProducerJump(u32),
    /// Raises no interrupt although one is due.
    NoInterrupt,
    /// Raises an interrupt although none is due, when it takes the request.
    Spurious,
}

/// Decides, for each request in the order in which the device takes them, what goes wrong.
pub type FaultScript = Script<Fault>;

/// How a host tells that a command moved less than there was room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Count {
    /// Success, and how much moved.
    #[default]
    Success,
    /// DATA_UNDERRUN, and how much moved.
    Underrun,
    /// As QEMU: DATARUN, and never how much moved.
    Uncounted,
}

/// How a device deviates from the plain one. All are within the interface except where said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Knobs {
    /// Completion order.
    pub order: Order,
    /// The first revision: no message ring.
    pub no_messages: bool,
    /// Offers the request-call threshold, at this value. Below it the device looks every 50 virtual microseconds.
    pub threshold: Option<u32>,
    /// Says how many targets there may be.
    pub max_targets: Option<u32>,
    /// How short transfers are told.
    pub count: Count,
    /// As QEMU: does not know chained tables, and reads on behind an element without data.
    pub no_chains: bool,
    /// Accepts aborts and resets of units and bus, and ends nothing.
    pub deaf: bool,
    /// Commands that fail, by the bits of their numbers.
    pub refuses: u32,
    /// A reset of the adapter ends what is in flight without completing it.
    pub reset_forgets: bool,
    /// Says that the rings have other sizes (a lie).
    pub wrong_sizes: bool,
}
