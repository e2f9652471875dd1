//! Task management: what recovery asks of a host, from the mildest to the last (SAM-5 7). Task or bottom-half context.
//!
//! A host carries it out and says no more than that it was told: the commands that it ends come back to their initiators, each once, with
//! [`Response::Aborted`](super::Response::Aborted) or [`Response::Reset`](super::Response::Reset). Whoever asks watches for that, and goes on to
//! the next rung when it does not come.

use super::Address;
use crate::Tag;

/// What to end, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Management {
    /// One command.
    Abort(Tag),
    /// All commands of a logical unit, and reset it.
    ResetUnit(Address),
    /// All commands of all units, and reset those.
    ResetBus,
    /// All commands, and set the host itself up anew. Commands are refused with [`Refusal::Full`](crate::Refusal::Full) until that is done.
    ResetHost,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Managed {
    /// The host was told.
    Asked,
    /// No such command is in flight: it has ended.
    NoCommand,
    /// The host refused, or is in no state to be asked: stopping, gone, or being reset already.
    Refused,
    /// The driver or the host has no such function.
    Unsupported,
}
