//! [`Ids`]: small numbers, each handed out once: grant references, tags, slots.
//!
//! A fixed bitmap of atomics: no lock, no allocation, and no place at which an interrupt on the same CPU could find it half changed
//! (A-XEN-01: a table of grant references that interrupt handlers and tasks changed without a lock handed the same one out twice). Any
//! context.

use crate::atomic::{AtomicUsize, Ordering, step};
use crate::broken::{self, Hazard};

const BITS: usize = usize::BITS as usize;

/// `WORDS` times as many numbers as a machine word has bits, from 0 on.
#[derive(Debug)]
pub struct Ids<const WORDS: usize> {
    /// A set bit is a number that is taken.
    taken: [AtomicUsize; WORDS],
}

/// A number was given back that was not taken: a defect of the caller, or of whoever the caller believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotTaken(pub usize);

impl core::fmt::Display for NotTaken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "number {} was given back and is not taken", self.0)
    }
}

impl<const WORDS: usize> Ids<WORDS> {
    /// How many numbers there are.
    pub const COUNT: usize = WORDS * BITS;

    crate::atomic::const_unless_model! {
        /// All of them free.
        pub fn new() -> Self {
            #[cfg(not(any(loom, shuttle)))]
            return Self { taken: [const { AtomicUsize::new(0) }; WORDS] };
            #[cfg(any(loom, shuttle))]
            return Self { taken: core::array::from_fn(|_| AtomicUsize::new(0)) };
        }
    }

    /// Takes a free number; `None` if there is none. What its last holder did before giving it back is visible.
    pub fn take(&self) -> Option<usize> {
        for (at, word) in self.taken.iter().enumerate() {
            let mut seen = word.load(Ordering::Relaxed);
            while seen != usize::MAX {
                let bit = seen.trailing_ones() as usize;
                step();
                if broken::is(Hazard::IdTakenBlindly) {
                    word.store(seen | 1 << bit, Ordering::Relaxed);
                    return Some(at * BITS + bit);
                }
                match word.compare_exchange(seen, seen | 1 << bit, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => return Some(at * BITS + bit),
                    // Somebody else's change: it took or gave back a number, so one of us gets on.
                    Err(now) => seen = now,
                }
            }
        }
        None
    }

    /// Gives a number back.
    ///
    /// # Errors
    /// [`NotTaken`], also for a number that there is not.
    pub fn give_back(&self, id: usize) -> Result<(), NotTaken> {
        let word = self.taken.get(id / BITS).ok_or(NotTaken(id))?;
        let bit = 1 << (id % BITS);
        let before = word.fetch_and(!bit, Ordering::Release);
        if before & bit == 0 { Err(NotTaken(id)) } else { Ok(()) }
    }

    /// How many are taken. While others take and give back, a number of a moment that never was.
    pub fn taken(&self) -> usize {
        self.taken.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }
}

#[cfg(not(any(loom, shuttle)))]
impl<const WORDS: usize> Default for Ids<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(shuttle)))]
#[path = "ids_tests.rs"]
mod tests;
