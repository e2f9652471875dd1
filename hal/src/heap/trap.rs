//! Counts, and in debug builds panics at, what the types could not refuse: a use of a heap in the wrong context.

use super::stats::{self, Count};
use crate::context::{self, Kind};

/// A use of a heap that a hard interrupt must not make.
#[inline]
pub(super) fn check(doing: &str) {
    if context::current() == Kind::HardIrq {
        refuse(doing, "a hard interrupt");
    }
}

/// A use of a heap that only a task may make.
#[inline]
pub(super) fn check_task(doing: &str) {
    match context::current() {
        Kind::Task => {}
        Kind::BottomHalf => refuse(doing, "a bottom half"),
        Kind::HardIrq => refuse(doing, "a hard interrupt"),
    }
}

#[cold]
fn refuse(doing: &str, context: &str) {
    stats::note(Count::InHardIrq);
    if cfg!(debug_assertions) {
        panic!("{doing} in {context}");
    }
}
