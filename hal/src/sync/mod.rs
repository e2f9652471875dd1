//! Locks that know about interrupts.
//!
//! [`IrqSpinLock`] may be taken in any context: it turns interrupts off on its CPU while held, so that a handler can
//! never spin on a lock that the code it interrupted holds. [`SpinLock`] is for bottom half and task: it keeps bottom halves from running on
//! its CPU while held, and leaves interrupts on. Every lock has a [`Rank`]; debug and test builds check that ranks only go up.

mod irq_spin;
mod rank;
mod spin;
mod ticket;

pub use irq_spin::{IrqSpinGuard, IrqSpinLock};
pub use rank::Rank;
pub use rank::assert_unlocked;
pub use spin::{SpinGuard, SpinLock};
