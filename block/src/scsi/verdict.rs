//! From an outcome to what to do about it. Any context; a pure function.
//!
//! Sources: SAM-5 5.3 (status), SPC-5 4.5 and annex F (sense), virtio 1.3 5.6.6.1.1 (the responses that [`Response`] is modelled on).

use bitflags::bitflags;

use super::wire::{Asc, Sense, SenseKey};
use super::{Outcome, Response, Status};
use crate::Error;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Done, as asked.
    Done,
    /// Send it again at once; after too many times, this error.
    Again(Error),
    /// Nothing was done because the device cannot now: send it again a little later; after too long, this error.
    Later(Error),
    /// It failed.
    Failed(Error),
}

bitflags! {
    /// What an outcome tells about the unit beyond its own command.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Notices: u8 {
        /// The capacity changed.
        const CAPACITY = 1 << 0;
        /// The medium changed.
        const MEDIUM = 1 << 1;
        /// Mode parameters, the write cache among them, may have changed.
        const MODE = 1 << 2;
        /// What was in the volatile cache may be lost.
        const CACHE_LOST = 1 << 3;
        /// The device does not know this operation code.
        const NO_SUCH_COMMAND = 1 << 4;
    }
}

/// Judges an outcome.
pub fn judge(outcome: &Outcome<'_>) -> (Verdict, Notices) {
    let verdict = match outcome.response {
        Response::Complete => return by_status(outcome),
        Response::Overrun | Response::TargetFailure | Response::Failure => Verdict::Failed(Error::Hardware),
        Response::Aborted => Verdict::Failed(Error::Cancelled),
        Response::BadTarget | Response::Removed => Verdict::Failed(Error::Removed),
        Response::Reset => Verdict::Again(Error::Reset),
        Response::Busy => Verdict::Later(Error::Busy),
        Response::TransportFailure => Verdict::Again(Error::Transport),
        Response::NexusFailure => Verdict::Failed(Error::Transport),
        Response::TimedOut => Verdict::Failed(Error::TimedOut),
        Response::Broken => Verdict::Failed(Error::Broken),
    };
    (verdict, Notices::empty())
}

fn by_status(outcome: &Outcome<'_>) -> (Verdict, Notices) {
    let verdict = match outcome.status {
        Status::GOOD | Status::CONDITION_MET => Verdict::Done,
        Status::CHECK_CONDITION => {
            return match Sense::parse(outcome.sense) {
                Some(sense) => by_sense(&sense),
                // Without sense nothing says that the data moved, nor that it did not.
                None => (Verdict::Again(Error::Hardware), Notices::empty()),
            };
        }
        Status::BUSY | Status::TASK_SET_FULL | Status::ACA_ACTIVE => Verdict::Later(Error::Busy),
        Status::RESERVATION_CONFLICT => Verdict::Failed(Error::Reserved),
        Status::TASK_ABORTED => Verdict::Again(Error::Hardware),
        _ => Verdict::Failed(Error::Hardware),
    };
    (verdict, Notices::empty())
}

/// Judges sense data.
pub fn by_sense(sense: &Sense) -> (Verdict, Notices) {
    if sense.deferred {
        // An earlier write, already reported done, did not stay; this command was not done.
        let lost = sense.key != SenseKey::RECOVERED_ERROR && sense.key != SenseKey::NO_SENSE;
        return (Verdict::Again(Error::Hardware), if lost { Notices::CACHE_LOST } else { Notices::empty() });
    }
    let failed = |error| (Verdict::Failed(error), Notices::empty());
    // The data failed its integrity check (ASC 10h), under whichever key.
    if sense.asc.0 == 0x10 {
        return failed(Error::Medium);
    }
    match sense.key {
        SenseKey::RECOVERED_ERROR | SenseKey::COMPLETED => (Verdict::Done, Notices::empty()),
        SenseKey::NOT_READY => (not_ready(sense.asc), Notices::empty()),
        SenseKey::MEDIUM_ERROR | SenseKey::BLANK_CHECK | SenseKey::VOLUME_OVERFLOW => failed(Error::Medium),
        SenseKey::ILLEGAL_REQUEST => illegal_request(sense.asc),
        SenseKey::UNIT_ATTENTION => (Verdict::Again(Error::NotReady), attention(sense.asc)),
        // Space allocation failed write protect: a thin device is full.
        SenseKey::DATA_PROTECT if sense.asc == Asc(0x27, 0x07) => failed(Error::NoSpace),
        SenseKey::DATA_PROTECT => failed(Error::ReadOnly),
        SenseKey::ABORTED_COMMAND | SenseKey::NO_SENSE => (Verdict::Again(Error::Hardware), Notices::empty()),
        _ => failed(Error::Hardware),
    }
}

fn not_ready(asc: Asc) -> Verdict {
    match asc {
        // Becoming ready; operation, long write, self-test or calculation in progress; access state transition; space allocation in
        // progress; sanitize and configuration changes take longer than anybody waits here.
        Asc(0x04, 0x01 | 0x05..=0x0a | 0x14) => Verdict::Later(Error::NotReady),
        _ => Verdict::Failed(Error::NotReady),
    }
}

fn illegal_request(asc: Asc) -> (Verdict, Notices) {
    let error = match asc {
        Asc(0x20, _) => return (Verdict::Failed(Error::Unsupported), Notices::NO_SUCH_COMMAND),
        // Logical block address out of range.
        Asc(0x21, _) => Error::OutOfRange,
        // Logical unit not supported.
        Asc(0x25, _) => Error::Removed,
        // Write protected.
        Asc(0x27, _) => Error::ReadOnly,
        // System resource failure.
        Asc(0x55, _) => return (Verdict::Later(Error::Busy), Notices::empty()),
        _ => Error::Unsupported,
    };
    (Verdict::Failed(error), Notices::empty())
}

fn attention(asc: Asc) -> Notices {
    match asc {
        Asc(0x28, 0x00) => Notices::MEDIUM | Notices::CAPACITY | Notices::MODE,
        // Power on, or an internal reset: a volatile cache is empty after it. A plain "reset occurred" does not say which it was.
        Asc(0x29, 0x00 | 0x01 | 0x04) => Notices::CACHE_LOST | Notices::MODE,
        Asc(0x29, _) => Notices::MODE,
        Asc(0x2a, 0x09) => Notices::CAPACITY,
        Asc(0x2a, 0x00 | 0x01) => Notices::MODE,
        // Microcode, operating conditions or inquiry data changed.
        Asc(0x3f, 0x00..=0x03) => Notices::MODE,
        _ => Notices::empty(),
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
