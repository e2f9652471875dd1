//! What a run did, in order: for its digest, its figures and its picture. Nothing in it depends on an address or on the time of day.

use std::cell::RefCell;

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Virtual nanoseconds.
    pub at: u64,
    /// What.
    pub what: &'static str,
    /// Which, of those of its kind.
    pub which: u64,
    /// Particulars.
    pub more: [u64; 2],
}

/// All that happened.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// The last of the events, if they were to be kept.
    pub events: Vec<Event>,
    /// Of all events, in order.
    pub digest: u64,
    /// Requests and other operations that were begun.
    pub operations: u64,
    /// Things that went wrong on purpose.
    pub faults: u64,
    /// Virtual nanoseconds that went by.
    pub nanos: u64,
    keep: bool,
}

/// Events that are kept.
const MOST: usize = 100_000;

thread_local!(static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) });

/// Begins to record on this thread; with the events themselves, if `keep`.
pub fn begin(keep: bool) {
    TRACE.set(Some(Trace { keep, digest: 0xcbf2_9ce4_8422_2325, ..Trace::default() }));
}

/// Ends it.
pub fn end() -> Trace {
    TRACE.take().unwrap_or_default()
}

fn with(f: impl FnOnce(&mut Trace)) {
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace {
            f(trace);
        }
    });
}

/// Notes an event. Task or bottom half: it may allocate.
pub fn note(at: u64, what: &'static str, which: u64, more: [u64; 2]) {
    with(|trace| {
        for word in [at, what.len() as u64 + u64::from(what.as_bytes()[0]), which, more[0], more[1]] {
            trace.digest = (trace.digest ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
        if trace.keep && trace.events.len() < MOST {
            trace.events.push(Event { at, what, which, more });
        }
    });
}

/// Counts what was begun.
pub fn count(operations: u64) {
    with(|trace| trace.operations += operations);
}

/// Counts what went wrong on purpose.
pub fn fault() {
    with(|trace| trace.faults += 1);
}

/// Counts time that went by.
pub fn passed(nanos: u64) {
    with(|trace| trace.nanos += nanos);
}
