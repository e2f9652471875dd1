//! Negative controls on the real code: hazards that a test of this crate can put back, one at a time, on its own thread.
//!
//! In a program [`is`] is the constant `false` and [`ordering`] the ordering it was given; only `cfg(test)` builds know the switch.

use crate::atomic::Ordering;

/// A defect that a test can put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "a build, or a model, has the parts that it is about")]
pub(crate) enum Hazard {
    /// X22: a pushed node is linked with a relaxed store.
    RelaxedPublication,
    /// The last node is taken off by a look and a store, so that a push between the two is lost.
    DetachedBlindly,
    /// X07: a schedule while the handler runs queues the work at once, so that it may run on two CPUs.
    QueuedWhileRunning,
    /// A-PC-29: the scheduled flag is cleared after the work was looked at instead of before.
    FlagClearedLate,
    /// A-PC-29: bottom halves end without a second look at the queue once interrupts are off.
    NoSecondLook,
    /// Pattern 39: a lock is released by a relaxed store.
    RelaxedUnlock,
    /// A batch of bottom halves that is used up is followed by the next at once.
    NoTaskTurn,
    /// A-GEN-01: a heap's cache is given up with a relaxed store.
    CacheLeftUnordered,
    /// A-GEN-01: a heap's cache is used without a look at whether it is in use.
    CacheEnteredBlindly,
    /// X17: a part writes its status over that of the others.
    StatusWrittenPlainly,
    /// X32: a count-down starts from the larger of the time left and its cap.
    LargerOfTimeAndCap,
    /// X32: ticks of a time too far to be counted are cut off at 64 bits.
    FarTimeWraps,
    /// Pattern 38: what is left of a wait when its count-down has ended is not started again.
    NotArmedAgain,
    /// Pattern 39: who kicks a CPU waits until that has looked.
    KickWaits,
    /// Pattern 40: addresses are given out without a look at the alignment asked for.
    AlignmentForgotten,
    /// A-XEN-01: a free number is taken by a look and a store.
    IdTakenBlindly,
    /// Pattern 6: DMA memory is freed with its length rounded up to pages.
    FreedLonger,
    /// A page that a device has is lent once more.
    LentTwice,
    /// Pages that a device has are freed with the others.
    FreedWhileLent,
    /// Removal clears the closed mark for a moment while a run begins.
    ClosedMarkLost,
    /// A message that waits behind another is not asked for (SynIC).
    MessageNotEnded,
    /// A grant that the other domain uses is given out again (Xen).
    RevokedInUse,
    /// The byte that says that event channels are pending is cleared after they were looked at instead of before (Xen).
    UpcallClearedLate,
}

crate::put_back!(Hazard);

/// `right`, or relaxed if a test has put `hazard` back.
#[inline(always)]
pub(crate) fn ordering(hazard: Hazard, right: Ordering) -> Ordering {
    if is(hazard) { Ordering::Relaxed } else { right }
}
