//! Locks that know about interrupts.
//!
//! [`IrqSpinLock`] may be taken in any context: it turns interrupts off on its CPU while held, so that a handler can
//! never spin on a lock that the code it interrupted holds. [`SpinLock`] is for bottom half and task: it keeps bottom halves from running on
//! its CPU while held, and leaves interrupts on. Every lock has a [`Rank`]; debug and test builds check that ranks only go up.

mod holding;
mod irq_spin;
mod rank;
mod spin;
mod ticket;

pub(crate) use holding::Holding;
pub use irq_spin::{IrqSpinGuard, IrqSpinLock};
pub use rank::{Rank, any_held, assert_unlocked};
pub use spin::{SpinGuard, SpinLock};

/// The longest that a lock of each rank was held on `cpu`, as (rank, nanoseconds). Empty in builds without lock checks.
pub fn longest_holds(cpu: usize, mut each: impl FnMut(u8, u64)) {
    crate::system::with(|system| {
        if let Some(cpu) = system.cpus.get(cpu) {
            cpu.locks.longest().for_each(|(rank, nanos)| each(rank, nanos));
        }
    });
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
