//! What can go wrong with a request to xenstore.

use alloc::string::String;
use core::fmt;

/// Why a request had no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// There is no such path.
    NotFound,
    /// This domain may not.
    Denied,
    /// Another transaction came between: it is to be tried again.
    Again,
    /// The server refused, with the error of this name (`EINVAL` and so on).
    Refused(String),
    /// The path, or the path and the value together, cannot be said in one message.
    TooLong,
    /// The path has a character that paths do not have, or is empty.
    BadPath,
    /// The value is not what its reader expects: what that is.
    BadValue(&'static str),
    /// A list changes all the time while it is read.
    Unsteady,
    /// No answer within the time allowed.
    Silent,
    /// The server broke the protocol; the connection is of no more use.
    Broken,
    /// There are as many watches as this crate keeps.
    TooManyWatches,
}

impl StoreError {
    /// From the name in an error's reply.
    pub(super) fn named(name: &[u8]) -> Self {
        match name.strip_suffix(b"\0").unwrap_or(name) {
            b"ENOENT" => Self::NotFound,
            b"EACCES" | b"EPERM" => Self::Denied,
            b"EAGAIN" => Self::Again,
            other => {
                // As much of it as an error's name may be.
                Self::Refused(String::from_utf8_lossy(&other[..other.len().min(32)]).into_owned())
            }
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("xenstore has no such path"),
            Self::Denied => f.write_str("xenstore does not let this domain do that"),
            Self::Again => f.write_str("another transaction came between"),
            Self::Refused(name) => write!(f, "xenstore refused: {name}"),
            Self::TooLong => f.write_str("longer than a message to xenstore may be"),
            Self::BadPath => f.write_str("this is no path of xenstore"),
            Self::BadValue(what) => write!(f, "the value in xenstore is not {what}"),
            Self::Unsteady => f.write_str("the list in xenstore changes all the time"),
            Self::Silent => f.write_str("xenstore does not answer"),
            Self::Broken => f.write_str("xenstore broke its protocol"),
            Self::TooManyWatches => f.write_str("too many watches"),
        }
    }
}

impl core::error::Error for StoreError {}
