//! What the operations answer. Two questions have two answers: was something cancelled, and is something still running.

use core::fmt;

/// What [`stop`](crate::Callout::stop) found.
///
/// Only [`Cancelled`](Self::Cancelled) and [`NotArmed`](Self::NotArmed) mean that the handler does not run now; none of them licenses
/// to free what the handler uses: closing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a stop may find the handler in flight"]
pub enum Stopped {
    /// It was armed, and is not any more: that run will not happen.
    Cancelled,
    /// It was not armed, and its handler was not in flight.
    NotArmed,
    /// Nothing to cancel: the handler has been committed to, and runs now or is about to.
    InFlight,
    /// The handler is in flight; a later run, for which it had been started meanwhile, was cancelled.
    CancelledNextInFlight,
}

impl Stopped {
    pub(crate) const fn of(cancelled: bool, in_flight: bool) -> Self {
        match (cancelled, in_flight) {
            (true, false) => Self::Cancelled,
            (false, false) => Self::NotArmed,
            (false, true) => Self::InFlight,
            (true, true) => Self::CancelledNextInFlight,
        }
    }

    /// Whether the handler was in flight.
    pub const fn is_in_flight(self) -> bool {
        matches!(self, Self::InFlight | Self::CancelledNextInFlight)
    }

    /// Whether a run was cancelled.
    pub const fn is_cancelled(self) -> bool {
        matches!(self, Self::Cancelled | Self::CancelledNextInFlight)
    }
}

/// What a start found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a start may replace an earlier one, or wait for a run to end"]
pub enum Started {
    /// It was not armed; it is now.
    Armed,
    /// It was armed for another time, at which it will not run.
    Replaced,
    /// Its handler is in flight. It is armed when that returns; an earlier such start was replaced.
    ParkedInFlight,
}

/// Why a callout was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartError {
    /// It is closed, for ever.
    Closed,
    /// Somebody waits for the end of its run: it may be started again after that.
    Draining,
    /// There is no such CPU, or the callout is another machine's.
    NoSuchCpu,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the callout is closed",
            Self::Draining => "the callout is being drained",
            Self::NoSuchCpu => "there is no such CPU",
        })
    }
}

impl core::error::Error for StartError {}

/// Why a drain or a close could not wait. What it asked for has begun all the same: the callout is stopped, or closed, and its run ends
/// unattended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainError {
    /// The handler in flight is below the caller on this CPU's stack: it cannot end while the caller waits.
    InHandler,
    /// The caller holds a lock, which may be what the handler waits for. Found in debug and test builds.
    LockHeld,
    /// The callout is another machine's.
    NoSuchCpu,
}

impl fmt::Display for DrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InHandler => "the callout's handler waits for itself",
            Self::LockHeld => "a drain with a lock held may wait for ever",
            Self::NoSuchCpu => "there is no such CPU",
        })
    }
}

impl core::error::Error for DrainError {}
