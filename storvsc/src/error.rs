//! Why the bus or a controller could not be driven. Small, `Copy`, and says whose fault it was.

use core::fmt;

use undercroft_hal::dma::DmaError;
use undercroft_hal::hyperv::CallError;

use crate::wire::vstor;

/// Why something on the bus did not go as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusError {
    /// The host took none of the versions.
    NoVersion,
    /// The host knows the version and cannot go on: its reason.
    Refused(u8),
    /// The host did not answer in time.
    NoAnswer,
    /// The host was behind with our messages for too long.
    Throttled,
    /// The hypervisor did not take a message.
    Call(CallError),
    /// The host did not take the channel's pages, or did not open it: its status.
    ChannelRefused(u32),
    /// The host took the channel back.
    Rescinded,
    /// The bus is not connected any more.
    Down,
    /// Memory for the rings could not be had.
    Memory(DmaError),
    /// More is under way than there is room for.
    TooMuch,
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVersion => f.write_str("the host speaks no version of VMBus that this guest knows"),
            Self::Refused(reason) => write!(f, "the host cannot connect the bus: {reason}"),
            Self::NoAnswer => f.write_str("the host did not answer"),
            Self::Throttled => f.write_str("the host is too far behind with messages"),
            Self::Call(error) => error.fmt(f),
            Self::ChannelRefused(status) => write!(f, "the host did not open the channel: status {status:#x}"),
            Self::Rescinded => f.write_str("the host took the channel back"),
            Self::Down => f.write_str("the bus is not connected any more"),
            Self::Memory(error) => error.fmt(f),
            Self::TooMuch => f.write_str("too much is under way on the bus"),
        }
    }
}

impl core::error::Error for BusError {}

impl From<DmaError> for BusError {
    fn from(error: DmaError) -> Self {
        Self::Memory(error)
    }
}

/// Why a controller could not be taken into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeError {
    /// Its channel.
    Bus(BusError),
    /// It took none of the versions of the storage protocol.
    NoVersion,
    /// It refused a step of its initialisation: which, and its status.
    Refused(vstor::Operation, u32),
    /// It did not answer in time.
    NoAnswer,
    /// It broke the contract.
    Broken,
    /// Somebody has it already, or it is not offered any more.
    Taken,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bus(error) => error.fmt(f),
            Self::NoVersion => f.write_str("the controller speaks no version of its protocol that this guest knows"),
            Self::Refused(operation, status) => {
                write!(f, "the controller refused operation {} with status {status:#x}", operation.0)
            }
            Self::NoAnswer => f.write_str("the controller did not answer"),
            Self::Broken => f.write_str("the controller broke its contract"),
            Self::Taken => f.write_str("the controller is in use, or gone"),
        }
    }
}

impl core::error::Error for ProbeError {}

impl From<BusError> for ProbeError {
    fn from(error: BusError) -> Self {
        Self::Bus(error)
    }
}
