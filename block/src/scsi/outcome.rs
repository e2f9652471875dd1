//! What came of a command: the transport's answer and the device's. Any context.

use core::fmt;

/// The transport's answer. Drivers map their own codes to these; a code they do not know is [`Response::Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Response {
    /// The device answered: the status is valid.
    Complete,
    /// The device wanted to move more data than the command's buffers hold.
    Overrun,
    /// Aborted, by us or by the host.
    Aborted,
    /// There is no such target or logical unit.
    BadTarget,
    /// The device or the bus was reset with the command in flight.
    Reset,
    /// The host has no resources for it now: nothing was done.
    Busy,
    /// The host failed to reach the device.
    TransportFailure,
    /// The target failed; another path would not help.
    TargetFailure,
    /// This path to the target failed.
    NexusFailure,
    /// The host failed in a way it does not explain.
    Failure,
    /// The deadline passed and the driver got the command back.
    TimedOut,
    /// The device or the host is gone.
    Removed,
    /// The host broke the transport's contract; the driver does not use it any more.
    Broken,
}

impl Response {
    /// Every response, for tests and tables.
    pub const ALL: [Self; 13] = [
        Self::Complete,
        Self::Overrun,
        Self::Aborted,
        Self::BadTarget,
        Self::Reset,
        Self::Busy,
        Self::TransportFailure,
        Self::TargetFailure,
        Self::NexusFailure,
        Self::Failure,
        Self::TimedOut,
        Self::Removed,
        Self::Broken,
    ];
}

/// A SCSI status code (SAM-5 5.3.1). Open: a device may send anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Status(pub u8);

impl Status {
    /// Done.
    pub const GOOD: Self = Self(0x00);
    /// Not done as asked; sense data says why.
    pub const CHECK_CONDITION: Self = Self(0x02);
    /// Done, with a condition that the command asked about.
    pub const CONDITION_MET: Self = Self(0x04);
    /// Not now: nothing was done.
    pub const BUSY: Self = Self(0x08);
    /// Another initiator has reserved the unit.
    pub const RESERVATION_CONFLICT: Self = Self(0x18);
    /// The unit's queue is full: nothing was done.
    pub const TASK_SET_FULL: Self = Self(0x28);
    /// An auto contingent allegiance is in force.
    pub const ACA_ACTIVE: Self = Self(0x30);
    /// Aborted by another initiator.
    pub const TASK_ABORTED: Self = Self(0x40);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::GOOD => f.write_str("GOOD"),
            Self::CHECK_CONDITION => f.write_str("CHECK CONDITION"),
            Self::CONDITION_MET => f.write_str("CONDITION MET"),
            Self::BUSY => f.write_str("BUSY"),
            Self::RESERVATION_CONFLICT => f.write_str("RESERVATION CONFLICT"),
            Self::TASK_SET_FULL => f.write_str("TASK SET FULL"),
            Self::ACA_ACTIVE => f.write_str("ACA ACTIVE"),
            Self::TASK_ABORTED => f.write_str("TASK ABORTED"),
            Self(other) => write!(f, "status {other:#04x}"),
        }
    }
}

/// What came of a command. Small, `Copy`, and always wholly initialised: a driver states every field (no stale status of the slot's last
/// use can show through).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// The transport's answer.
    pub response: Response,
    /// The device's status, valid with [`Response::Complete`].
    pub status: Status,
    /// Sense data as the device sent it, cut by the driver to what was really written; empty if there is none.
    pub sense: &'a [u8],
    /// Bytes of the command's data that were not moved, as the host says: anything may be in it.
    pub residual: u32,
}

impl Outcome<'_> {
    /// Done, all of it.
    pub const GOOD: Self = Self { response: Response::Complete, status: Status::GOOD, sense: &[], residual: 0 };

    /// The transport failed: nothing is known of the device's answer.
    pub const fn failed(response: Response) -> Self {
        Self { response, status: Status::GOOD, sense: &[], residual: 0 }
    }
}
