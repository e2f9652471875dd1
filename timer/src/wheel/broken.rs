//! Negative controls: defects that a test of this crate can put back, one at a time, on its own thread.
//!
//! In a program [`is`] is the constant `false`; only `cfg(test)` builds know the switch.

/// A defect that a test can put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    /// W-01: the clock follows a time that goes back.
    ClockFollows,
    /// W-02: the next event is the time that was asked for, not the tick that it is due at.
    EventAsAsked,
    /// W-03: how far a tick is, is taken from the tick alone.
    ReachFromZero,
    /// W-04: the next event is where the slot ends, not what is in it.
    EventOfSlot,
    /// W-05: the first slot of a level is looked for from slot 0 on, not from the clock's.
    NotRotated,
    /// W-06: levels for part of the range only.
    TooFewLevels,
    /// W-07: a node is taken out of where its deadline says that it is.
    PlaceFromDeadline,
    /// W-13: ticks are compared as signed numbers of 32 bits.
    SignedTicks,
    /// W-18: a deadline is rounded down to its tick.
    RoundedDown,
    /// I-10: a step goes on until it is done.
    Unbounded,
    /// I-10: that a full slot can be moved down is no event.
    NoEventAhead,
}

undercroft_hal::put_back!(Defect, "wheel");
