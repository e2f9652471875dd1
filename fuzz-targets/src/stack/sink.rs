//! Who is told of ends: exactly one for each operation, in a bottom half, with no lock held.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use undercroft_block::{Complete, Completion, Error, Event, Request, Watcher};
use undercroft_hal::context::{self, Kind};
use undercroft_hal::hosted::trap;
use undercroft_hal::sync::assert_unlocked;
use undercroft_hal::{BottomHalf, Instant};
use undercroft_pagecache::{Done, Finish, Outcome};

use crate::trace;

/// What came back.
#[derive(Debug)]
pub enum Back {
    /// A request.
    Request(Request),
    /// An operation of a page cache.
    Cache(Outcome),
}

/// An end.
#[derive(Debug)]
pub struct Ended {
    /// What of.
    pub back: Back,
    /// How.
    pub result: Result<(), Error>,
    /// The moment, on the run's clock.
    pub at: u64,
}

/// Collects ends.
#[derive(Debug, Default)]
pub struct Sink {
    ended: Mutex<BTreeMap<u64, Ended>>,
    clock: AtomicU64,
    /// Events of devices.
    pub events: AtomicU64,
}

impl Sink {
    /// The next moment.
    pub fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn ended(&self) -> MutexGuard<'_, BTreeMap<u64, Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many ends nobody has taken yet.
    pub fn count(&self) -> usize {
        self.ended().len()
    }

    /// Takes them.
    pub fn take(&self) -> BTreeMap<u64, Ended> {
        std::mem::take(&mut *self.ended())
    }

    /// Where a request goes.
    pub fn completion(self: &Arc<Self>, cookie: u64) -> Completion {
        Completion::new(Arc::clone(self) as Arc<dyn Complete>, cookie)
    }

    /// Where an operation of a page cache goes.
    pub fn done(self: &Arc<Self>, cookie: u64) -> Done {
        Done::in_bottom_half(Arc::clone(self) as Arc<dyn Finish>, cookie)
    }

    fn end(&self, cookie: u64, back: Back, result: Result<(), Error>) {
        assert_eq!(context::current(), Kind::BottomHalf, "a completion is not in a bottom half");
        assert_unlocked("a completion of the simulation runs");
        let at = self.tick();
        trap::outside(|| {
            let error = result.err().map_or(0, |error| 1 + error as u64);
            trace::note(Instant::now().as_nanos(), "ended", cookie, [error, at]);
            let before = self.ended().insert(cookie, Ended { back, result, at });
            assert!(before.is_none(), "operation {cookie} ends twice");
        });
    }
}

impl Complete for Sink {
    fn complete(&self, _: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        self.end(cookie, Back::Request(request), result);
    }
}

impl Finish for Sink {
    fn finish(&self, _: &BottomHalf, cookie: u64, outcome: Outcome) {
        let result = outcome.result;
        self.end(cookie, Back::Cache(outcome), result);
    }
}

impl Watcher for Sink {
    fn event(&self, _: &BottomHalf, _: Event) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }
}
