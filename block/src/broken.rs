//! Negative controls on the real code: hazards that a test can put back, one at a time, on its own thread. In a program [`is`] is the constant
//! `false`.

/// A defect that a test can put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "constructed by tests only"))]
pub(crate) enum Hazard {
    /// X05: a part is as long as the request, whatever the device takes.
    PartTooLong,
    /// P-08: a segment across a boundary is taken as it is.
    BoundaryUnseen,
    /// P-08: pieces that do not meet where the device wants are taken as they are.
    JointUnseen,
    /// P-21: a flush that the device refuses is done.
    RefusedFlushIsDone,
    /// P-22: a partition's first block is taken for a sector of 512 bytes.
    SectorsForBlocks,
    /// P-22: a table is read in sectors of 512 bytes.
    ReadsSectors,
    /// P-22: a table is read into any memory.
    AnyBuffer,
    /// P-22: a GPT's backup is not looked for.
    NoBackup,
    /// X33: a request of which a part could not be sent is forgotten.
    ForgottenHalfWay,
    /// X25: the request comes back as its last part.
    NotRestored,
    /// Pattern 11: BUSY is an error.
    BusyFails,
    /// Pattern 21: a write through is done when the write is.
    FakeDurable,
    /// A flush that a reset ended is sent again, and reported done.
    FlushSentAgain,
    /// A flush that waited is never done, because none of the blocks that it names are.
    FlushEndless,
    /// The answer after the abort completes the request a second time.
    LateAnswerCounts,
    /// Requests with a gap between them go to the device as one.
    MergesGaps,
    /// A device is given up with a flush: the data that was written before stays with the queue.
    StashKept,
    /// What a device that was given up gives back is kept for ever.
    OrphanKept,
    /// Nobody looks at deadlines.
    NoDeadlines,
    /// One submitter's requests go before all others.
    NoTurns,
    /// Room that came while the device refused is not seen.
    RoomMissed,
    /// A completion makes room that only its own CPU's requests see.
    Starves,
    /// A CPU sends while another one's request has the device reset.
    SendsIntoReset,
    /// X20: the callout's handler does not let go of the queue that ends in it.
    CalloutKeepsQueue,
    /// Waiting requests are forgotten at removal.
    ForgetsAtRemoval,
    /// A-PC-42: every error is reported.
    ReportsAll,
    /// X27: a block's number is cut to 32 bits.
    CutsBlocks,
    /// Pattern 16: the first INQUIRY asks for all that there may be.
    LongInquiry,
    /// Pattern 19: a unit whose last block is the one before the first has 2^64 of them.
    EmptyIsHuge,
    /// A disk's commands keep its host, which keeps its commands.
    UnitKeepsHost,
    /// What the host had no room for asks again and again, and keeps tasks from running.
    AsksForRoom,
    /// Pattern 17: a capacity that could not be read is taken from the buffer all the same.
    UsesUnread,
}

undercroft_hal::put_back!(Hazard);
