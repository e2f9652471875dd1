//! [`Parts`]: one result of several parts, which may end on many CPUs at once: the first error wins, and the last to end learns it.
//!
//! For whatever cuts one request into several. What starts the parts is itself one of them: [`Parts::start`] holds that share while its
//! closure runs and gives it up when the closure returns, however it returns, so that the whole can neither be over while parts are still
//! being started, nor be forgotten when starting one of them fails (X33). The result comes out exactly once, from the call that ended the
//! last part: its caller completes the whole. Nothing is allocated, nothing waits. Any context.

use core::marker::PhantomData;

use crate::atomic::{AtomicU32, Ordering, const_unless_model};
use crate::broken::{self, Hazard};

/// Errors that fit in a number.
pub trait Code: Copy {
    /// The error's number, less than `u32::MAX`; different errors have different numbers.
    fn to_code(self) -> u32;
    /// The error of a number that [`Code::to_code`] gave.
    fn from_code(code: u32) -> Self;
}

/// See the module. Reusable: when the result has come out it is as new.
#[derive(Debug)]
pub struct Parts<E> {
    /// Parts that have not ended, the starter's own share among them.
    left: AtomicU32,
    /// The first error's number plus one; 0 while there is none.
    first: AtomicU32,
    error: PhantomData<fn() -> E>,
}

/// The right to add parts, while [`Parts::start`] holds its share.
#[derive(Debug)]
pub struct Starter<'a, E> {
    parts: &'a Parts<E>,
}

/// Too many parts: the count would overflow. Nothing was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl<E: Code> Parts<E> {
    const_unless_model! {
        /// No parts.
        pub fn new() -> Self {
            Self { left: AtomicU32::new(0), first: AtomicU32::new(0), error: PhantomData }
        }
    }

    /// Runs `start`, which adds parts and sends them off. `Some`: all is over already, and this is the result; else the caller of the last
    /// [`Parts::end`] gets it. An error that `start` returns counts as a part's.
    ///
    /// # Panics
    /// In debug and test builds, if an earlier whole is not over.
    #[must_use = "whoever gets the result completes the whole"]
    pub fn start(&self, start: impl FnOnce(&Starter<'_, E>) -> Result<(), E>) -> Option<Result<(), E>> {
        // Relaxed: whoever may call this has the structure to itself, and the parts learn of it by being sent off.
        let before = self.left.swap(1, Ordering::Relaxed);
        debug_assert!(before == 0, "{before} parts of an earlier whole have not ended");
        let result = start(&Starter { parts: self });
        self.end(result)
    }

    /// A part has ended. `Some`: it was the last, and this is the result of the whole.
    #[must_use = "whoever gets the result completes the whole"]
    pub fn end(&self, result: Result<(), E>) -> Option<Result<(), E>> {
        self.note(result);
        // Release: whoever ends the last part sees what this one did and noted. Acquire: we may be the last.
        match self.left.fetch_sub(1, Ordering::AcqRel) {
            1 => Some(match self.first.swap(0, Ordering::Relaxed) {
                0 => Ok(()),
                noted => Err(E::from_code(noted - 1)),
            }),
            left => {
                debug_assert!(left > 1, "a part ended that was not started");
                None
            }
        }
    }

    fn note(&self, result: Result<(), E>) {
        let noted = result.map_or_else(|error| error.to_code().saturating_add(1), |()| 0);
        if broken::is(Hazard::StatusWrittenPlainly) {
            self.first.store(noted, Ordering::Relaxed);
        } else if noted != 0 {
            // Relaxed: the count publishes it.
            let _ = self.first.compare_exchange(0, noted, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl<E: Code> Default for Parts<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Code> Starter<'_, E> {
    /// Counts a part that is about to be sent off; from here on it must be ended once.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn add(&self) -> Result<(), TooMany> {
        // Relaxed: our own share keeps the count from reaching zero.
        let added = self.parts.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_add(1));
        added.map(drop).map_err(|_| TooMany)
    }
}

#[cfg(all(test, not(shuttle)))]
#[path = "parts_tests.rs"]
mod tests;
