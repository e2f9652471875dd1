//! Why a request failed, and whose fault it was. Any context.

use core::fmt;

use undercroft_hal::parts::Code;

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The range is not wholly on the device.
    OutOfRange,
    /// The data's length is not the range's, or not a multiple of the block size.
    BadLength,
    /// More segments, longer segments or a longer transfer than the device takes, or a segment across a boundary.
    TooLarge,
    /// The device cannot do this operation.
    Unsupported,
    /// The device is read only.
    ReadOnly,
    /// The data's memory is not where the device can reach it.
    Unreachable,
    /// The device reported that the medium failed.
    Medium,
    /// The device reported an error of its own.
    Hardware,
    /// The device transferred less than it was asked to.
    ShortTransfer,
    /// The device kept saying that it is busy.
    Busy,
    /// No medium, or it changed.
    NotReady,
    /// The device has no space left behind its blocks (thin provisioning).
    NoSpace,
    /// Another initiator has reserved the device.
    Reserved,
    /// The deadline passed and recovery did not bring an answer.
    TimedOut,
    /// Cancelled by its submitter.
    Cancelled,
    /// The device was reset with the request in flight (it may have been carried out, in part or not at all), or lost its volatile cache
    /// with writes in it.
    Reset,
    /// The device was reset before it was told of the request: nothing of it was done, and it may be sent again.
    NotStarted,
    /// The way to the device failed.
    Transport,
    /// The device was removed.
    Removed,
    /// The device broke its contract and is not used any more.
    Broken,
    /// Memory ran out.
    NoMemory,
}

/// Whose fault an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The submitter asked for something impossible.
    Caller,
    /// The device, or what is behind it.
    Device,
    /// The way there: timeouts, resets, removal.
    Transport,
    /// This system's own resources.
    Resources,
}

impl Error {
    /// Whose fault it is.
    pub const fn fault(self) -> Fault {
        match self {
            Self::OutOfRange
            | Self::BadLength
            | Self::TooLarge
            | Self::Unsupported
            | Self::ReadOnly
            | Self::Unreachable
            | Self::Cancelled => Fault::Caller,
            Self::Medium
            | Self::Hardware
            | Self::ShortTransfer
            | Self::Busy
            | Self::NotReady
            | Self::NoSpace
            | Self::Reserved
            | Self::Broken => Fault::Device,
            Self::TimedOut | Self::Reset | Self::NotStarted | Self::Transport | Self::Removed => Fault::Transport,
            Self::NoMemory => Fault::Resources,
        }
    }
}

impl Error {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 21] = [
        Self::OutOfRange,
        Self::BadLength,
        Self::TooLarge,
        Self::Unsupported,
        Self::ReadOnly,
        Self::Unreachable,
        Self::Medium,
        Self::Hardware,
        Self::ShortTransfer,
        Self::Busy,
        Self::NotReady,
        Self::NoSpace,
        Self::Reserved,
        Self::TimedOut,
        Self::Cancelled,
        Self::Reset,
        Self::NotStarted,
        Self::Transport,
        Self::Removed,
        Self::Broken,
        Self::NoMemory,
    ];
}

const _: () = {
    let mut number = 0;
    while number < Error::ALL.len() {
        assert!(Error::ALL[number] as usize == number);
        number += 1;
    }
    assert!(number == Error::NoMemory as usize + 1);
};

impl Code for Error {
    fn to_code(self) -> u32 {
        self as u32
    }
    fn from_code(code: u32) -> Self {
        Self::ALL.get(code as usize).copied().unwrap_or(Self::Broken)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfRange => "the range is not on the device",
            Self::BadLength => "the data does not fill the range",
            Self::TooLarge => "the request is larger than the device takes",
            Self::Unsupported => "the device cannot do this",
            Self::ReadOnly => "the device is read only",
            Self::Unreachable => "the device cannot reach the data's memory",
            Self::Medium => "the medium failed",
            Self::Hardware => "the device failed",
            Self::ShortTransfer => "the device transferred too little",
            Self::Busy => "the device stays busy",
            Self::NotReady => "the device is not ready",
            Self::NoSpace => "the device has no space left",
            Self::Reserved => "another initiator has reserved the device",
            Self::Transport => "the way to the device failed",
            Self::TimedOut => "the device did not answer in time",
            Self::Cancelled => "cancelled",
            Self::Reset => "the device was reset",
            Self::NotStarted => "the device was reset before it saw the request",
            Self::Removed => "the device was removed",
            Self::Broken => "the device broke its contract",
            Self::NoMemory => "out of memory",
        })
    }
}

impl core::error::Error for Error {}
