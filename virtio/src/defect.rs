//! Historic hazards that tests put back, to show that the same check catches them. Outside this crate's own tests there are none:
//! [`Defects::has`] is `false` at compile time.

/// A hazard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
#[cfg_attr(not(test), expect(dead_code, reason = "constructed by tests only"))]
pub(crate) enum Defect {
    /// Used elements are believed without a look at what is in flight (X02).
    TrustsUsedIds = 1 << 0,
    /// The used index may jump (X02).
    TrustsUsedIndex = 1 << 1,
    /// Lengths are believed (A-VQ-03).
    TrustsLengths = 1 << 2,
    /// Chains are freed by what the shared descriptors say (X35).
    TrustsSharedChains = 1 << 3,
    /// The notification window is compared as plain integers (X03).
    PlainWindow = 1 << 4,
    /// A chain's slot keeps the length of its last use (A-VQ-04).
    StaleChainLength = 1 << 5,
    /// `FEATURES_OK` is not read back (X24).
    TrustsFeatures = 1 << 6,
    /// Completions run while the queue's lock is held (A-VQ-03, A-VBLK-04).
    CompletesUnderLock = 1 << 7,
    /// The status byte is not preset before a request goes out (A-VBLK-04).
    StatusNotPreset = 1 << 8,
    /// Sectors are counted in logical blocks (X19).
    ScalesSectors = 1 << 9,
    /// What is in flight is forgotten at removal (A-VBLK-03).
    ForgetsAtRemoval = 1 << 10,
    /// All queues complete on the first one's CPU (A-VQ-01).
    OneHomeForAll = 1 << 11,
    /// What came back before interrupts were on again is not looked for (A-VQ-02).
    NoSecondLook = 1 << 12,
    /// A request allocates (A-VBLK-02).
    AllocatesPerRequest = 1 << 13,
    /// A setup that fails leaves its rings behind (A-VBLK-01).
    LeaksOnFailure = 1 << 14,
    /// A LUN is one byte (X23).
    OneByteLun = 1 << 15,
    /// Event buffers are not given back (A-VSCSI-02).
    KeepsEventBuffers = 1 << 16,
    /// The tag of every command is the same (the cause of "overlapped commands" on some hosts).
    SameTag = 1 << 17,
    /// What the transport answers is not looked at (A-VSCSI-08).
    IgnoresResponse = 1 << 18,
    /// A bottom half goes on for as long as there is work (A-VSCSI-11).
    NoBudget = 1 << 19,
    /// Commands that do not end are left alone: nothing goes to the control queue (A-VSCSI-10).
    NoManagement = 1 << 20,
    /// That events were lost is not looked at (A-VSCSI-02).
    IgnoresMissed = 1 << 21,
    /// Interrupt handlers allocate (A-GEN-03).
    AllocatesInInterrupt = 1 << 22,
    /// A reset is taken to mean that nothing was done.
    ResetSaysNothingDone = 1 << 23,
    /// The cache is switched off without a flush of what is in it.
    SwitchesWithoutFlush = 1 << 24,
    /// A packed ring's wrap counter is not turned at the end of the ring.
    KeepsWrap = 1 << 25,
    /// The chain that is freed is the oldest, whichever came back (P-01).
    FreesInOrder = 1 << 26,
    /// A ring that begins anew keeps what was in its memory (P-05).
    KeepsMemory = 1 << 27,
    /// A sector's number is cut to 32 bits (X27).
    CutsSectors = 1 << 28,
    /// An event that nobody asked for stops the device (P-14).
    StopsAtUnknown = 1 << 29,
    /// Every event is about the one unit that there was thought to be (P-15).
    OneUnit = 1 << 30,
    /// The last block of a device without blocks is the one before the first (P-19).
    LastBlockWraps = 1 << 31,
    /// An interrupt with nothing to serve is taken for a failure (P-19).
    ExpectsUsed = 1 << 32,
    /// The configuration is read once, whether it changes meanwhile or not (P-17).
    IgnoresGeneration = 1 << 33,
    /// The length of sense data is believed (P-16).
    TrustsSenseLength = 1 << 34,
    /// A flush is reported as done without being performed (P-21).
    FakesFlush = 1 << 35,
}

undercroft_hal::defects!(Defect as u64);
