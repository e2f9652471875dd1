//! Historic hazards that tests put back, to show that the same check catches them. Outside this crate's own tests there are none:
//! [`Defects::has`] is `false` at compile time.

/// A hazard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
#[cfg_attr(any(not(test), loom), allow(dead_code, reason = "constructed by tests only"))]
pub(crate) enum Defect {
    /// The host's offset of what it has read is believed.
    TrustsOffsets = 1 << 0,
    /// A packet's length is believed.
    TrustsLength = 1 << 1,
    /// No fence between publishing and the look whether the host sleeps (A-SVSC-09).
    PublishUnfenced = 1 << 2,
    /// The host is signalled for each batch, needed or not.
    SignalsAlways = 1 << 3,
    /// No fence between asking for room and the second look (X06).
    PendingUnfenced = 1 << 4,
    /// No second look after asking for room (X06).
    PendingUnseen = 1 << 5,
    /// No fence between reading and the look whether the host waits for room.
    SettleUnfenced = 1 << 6,
    /// Signals are asked for without a second look.
    RestsBlindly = 1 << 7,
    /// No fence before that second look.
    RestUnfenced = 1 << 8,
    /// A transaction id is believed without a look at its generation (X06).
    TrustsTransaction = 1 << 9,
    /// A command allocates (A-SVSC-02, A-SVSC-07).
    AllocatesPerCommand = 1 << 10,
    /// A command's slot is free only after its completion has run (A-SVSC-03).
    FreesSlotLate = 1 << 11,
    /// Completions run with the lock held (A-SVSC-03).
    CompletesUnderLock = 1 << 12,
    /// A refused submitter is not noted (X06).
    ForgetsRefusal = 1 << 13,
    /// Buffers are given back when a channel is rescinded, before the host has let go of its pages.
    EndsBeforeTorndown = 1 << 15,
    /// A host that is behind is not asked again.
    PostsOnce = 1 << 16,
    /// The SRB's status is not looked at.
    IgnoresSrbStatus = 1 << 18,
    /// The number of bytes moved is believed.
    TrustsTransferLength = 1 << 19,
    /// Messages that nobody waits for are dropped, offers among them.
    DropsUnawaited = 1 << 20,
    /// An overdue command is not looked for again: a signal that was lost costs a reset.
    LooksOnce = 1 << 17,
    /// Nothing is said to the host when the system panics.
    NoLastWords = 1 << 22,
    /// All commands have one transaction id (A-SVSC-04).
    SameTransaction = 1 << 14,
    /// Page lists with a hole are sent as they are (A-SVSC-07).
    IgnoresHoles = 1 << 21,
}

undercroft_hal::defects!(Defect as u64);
