//! Historic hazards that tests put back, to show that the same check catches them. Outside this crate's own tests there are none:
//! [`Defects::has`] is `false` at compile time.

/// A hazard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[cfg_attr(not(test), expect(dead_code, reason = "constructed by tests only"))]
pub(crate) enum Defect {
    /// A completion's context is believed without a look at its generation.
    TrustsContext = 1 << 0,
    /// The producer indices of completions and messages may jump.
    TrustsProducer = 1 << 1,
    /// The length of sense data is believed.
    TrustsSenseLength = 1 << 2,
    /// The number of bytes moved is believed.
    TrustsDataLength = 1 << 3,
    /// Whether data moved short is not looked at.
    IgnoresUnderrun = 1 << 4,
    /// An underrun is an error, whatever the command (the cause of disks not found).
    UnderrunIsError = 1 << 5,
    /// The adapter's status is not looked at.
    IgnoresHostStatus = 1 << 6,
    /// Sense data stays in its buffer for the next command.
    KeepsSense = 1 << 7,
    /// The place of a request is chosen before the lock that protects it is taken (A-PVS-03, X08).
    ProducerUnlocked = 1 << 8,
    /// A refused submitter is noted after the lock was let go (A-PVS-03).
    NotesRefusalLate = 1 << 9,
    /// A busy unit is sent the command again at once, for ever, by the driver itself (A-PVS-05, X08).
    ResendsBusy = 1 << 10,
    /// A command allocates (A-PVS-01, A-PVS-04).
    AllocatesPerCommand = 1 << 11,
    /// What is in flight when the adapter is reset is forgotten.
    ForgetsAtReset = 1 << 12,
    /// What is in flight at removal is forgotten.
    ForgetsAtRemoval = 1 << 13,
    /// Completions run while the lock is held.
    CompletesUnderLock = 1 << 14,
    /// Messages are not taken off their ring.
    KeepsMessages = 1 << 15,
    /// Every interrupt of a line is claimed.
    ClaimsEverything = 1 << 16,
    /// The threshold is not looked at.
    IgnoresThreshold = 1 << 17,
    /// A LUN is one byte (X23).
    OneByteLun = 1 << 18,
    /// A bottom half goes on for as long as there is work.
    NoBudget = 1 << 19,
    /// A setup that fails leaves its rings behind.
    LeaksOnFailure = 1 << 20,
    /// Commands that the device has not seen are not shown to it before it is asked to end them.
    AbortsUnpublished = 1 << 21,
    /// The bottom half collapses what it drains into a list, and works on that from the wrong end (A-PVS-02).
    DrainsBackwards = 1 << 22,
    /// A message that nobody asked for stops the adapter (P-14).
    StopsAtUnknown = 1 << 23,
    /// An interrupt with nothing to serve is taken for a failure (P-19).
    ExpectsCompletion = 1 << 24,
}

undercroft_hal::defects!(Defect as u32);
