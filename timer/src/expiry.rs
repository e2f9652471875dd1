//! What a handler is told about its run.

use undercroft_hal::clock::{Duration, Instant};

use crate::callout::CalloutRef;
use crate::node::{Flight, Ref};
use crate::service;

/// One expiry of a callout, as its handler sees it.
pub struct Expiry {
    node: Option<Ref>,
    deadline: u64,
    now: u64,
    missed: u64,
    generation: u32,
}

impl Expiry {
    pub(crate) fn new(flight: &Flight, now: u64) -> Self {
        Self {
            node: Some(flight.node().another()),
            deadline: flight.nominal,
            now,
            missed: u64::from(flight.missed),
            generation: flight.generation,
        }
    }

    /// The time that was asked for.
    pub const fn deadline(&self) -> Instant {
        Instant::from_nanos(self.deadline)
    }

    /// The time at which the executor took it up.
    pub const fn now(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    /// How much later than its deadline it was taken up.
    pub const fn late(&self) -> Duration {
        self.now().since(self.deadline())
    }

    /// How many periods were left out before this deadline, because the one before was served too late: see [`Next::Every`](crate::Next::Every).
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    /// Which start this is the run of: every start, stop, drain and close of the callout makes a new generation.
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether the callout was started, stopped, drained or closed since this run was committed to: if so, this run is not what its owner
    /// wants any more. An answer for the moment, taken under the lock of its wheel; any context.
    pub fn superseded(&self) -> bool {
        let asked = self.node.as_ref().and_then(|node| service::with(|wheels| wheels.generation(node)));
        asked.flatten().is_some_and(|generation| generation != self.generation)
    }

    /// The callout itself, for its own handler.
    pub const fn callout(&self) -> CalloutRef<'_> {
        CalloutRef::new(self.node.as_ref())
    }
}

impl Drop for Expiry {
    fn drop(&mut self) {
        // Not the last reference: the flight has one.
        if let Some(node) = self.node.take() {
            drop(node.release());
        }
    }
}

impl core::fmt::Debug for Expiry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Expiry")
            .field("deadline", &self.deadline)
            .field("now", &self.now)
            .field("missed", &self.missed)
            .field("generation", &self.generation)
            .finish()
    }
}
