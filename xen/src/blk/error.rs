//! What can go wrong with connecting a disk.

use alloc::string::String;
use core::fmt;

use undercroft_hal::dma::DmaError;
use undercroft_hal::xen::Errno;

use crate::store::StoreError;

/// Why a disk is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectError {
    /// A request to xenstore failed: about this path.
    Store(String, StoreError),
    /// The other end says something that cannot be: what that is.
    Bad(&'static str, u64),
    /// Memory for rings and data could not be had.
    Memory(DmaError),
    /// No grant is free.
    NoGrant,
    /// No event channel.
    NoEvents(Errno),
    /// The other end went away, or did not come, in this state of its own.
    Gone(u64),
    /// The other end was restarted, and what this names is not what it was.
    Changed(&'static str),
    /// The other end keeps so much after its end that there is too little left.
    TooMuchKept,
    /// The tool stack is taking the device away, or has.
    Leaving,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(path, error) => write!(f, "{path}: {error}"),
            Self::Bad(what, value) => write!(f, "the backend says that {what} is {value}"),
            Self::Memory(error) => error.fmt(f),
            Self::NoGrant => f.write_str("no grant is free"),
            Self::NoEvents(error) => write!(f, "no event channel: {error}"),
            Self::Changed(what) => write!(f, "the backend was restarted, and {what} is not what it was"),
            Self::TooMuchKept => f.write_str("the backend has ended and keeps too many pages"),
            Self::Leaving => f.write_str("the tool stack takes it away"),
            Self::Gone(state) => write!(f, "the backend does not connect, it is in state {state}"),
        }
    }
}

impl core::error::Error for ConnectError {}
