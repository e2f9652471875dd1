//! What can go wrong with a request.

use crate::Script;

/// Something that a device does wrong, or that a good device may do rarely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Completes after this many virtual nanoseconds.
    Delay(u64),
    /// Completes after this many later requests did (or after a virtual millisecond, if they do not come).
    Behind(u32),
    /// Never answers. The buffers stay the device's until a reset.
    Never,
    /// Performs nothing and answers an error: virtio-blk IOERR, virtio-scsi FAILURE.
    Error,
    /// Answers this status byte (virtio-blk) or response code (virtio-scsi).
    Status(u8),
    /// virtio-scsi: answers CHECK CONDITION with this sense key, code and qualifier.
    Sense(u8, u8, u8),
    /// virtio-scsi: says that it wrote this many bytes of sense data.
    SaysSense(u32),
    /// virtio-scsi: answers this SCSI status without sense data (BUSY is 0x08, TASK SET FULL 0x28).
    ScsiStatus(u8),
    /// Performs the request but leaves the status untouched.
    NoStatus,
    /// Says that it wrote this many bytes less than it did.
    Short(u32),
    /// Says that it wrote this many bytes more than the buffers hold.
    TooLong(u32),
    /// Writes the used entry twice.
    Duplicate,
    /// Writes a used entry with an id beyond the queue instead.
    BadId,
    /// Writes a used entry with an id that is in range and not in flight instead.
    IdleId,
    /// Moves the used index this much further than it wrote entries.
    IndexJump(u16),
    /// Raises no interrupt although one is due.
    NoInterrupt,
    /// Raises an interrupt although none is due, before the request is done.
    Spurious,
    /// Stops, and asks to be reset (DEVICE_NEEDS_RESET).
    NeedsReset,
}

/// What the script says about one request.
pub type Decision = Vec<Fault>;

/// Decides, for each request in the order in which the device takes them, what goes wrong.
pub type FaultScript = Script<Fault>;
