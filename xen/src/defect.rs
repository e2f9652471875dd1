//! Historic hazards that tests put back, to show that the same check catches them.

/// A hazard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "constructed by tests only"))]
pub(crate) enum Defect {
    /// X11: the ring's indices are compared as numbers, which fails where they run past 2^32.
    PlainIndices,
    /// X11: the slot in a response's id is believed, the rest not looked at.
    TrustsSlot,
    /// X11: the operation in a response is not looked at.
    IgnoresOperation,
    /// A-XBLK-03: who was refused is not noted.
    ForgetsRefusal,
    /// A-XBLK-05, X10: a completion runs with the lock held.
    CompletesUnderLock,
    /// A-XBLK-03: an attempt to connect that fails leaves its watch, and the other end its pages.
    LeaksOnFailure,
    /// A-XBLK-01, A-XBLK-02: a response allocates, under the lock.
    AllocatesUnderLock,
}

undercroft_hal::put_back!(Defect);
