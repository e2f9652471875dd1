//! Negative controls on the real code: hazards that a test can put back, one at a time, on its own thread. In a program [`is`] is the constant
//! `false`.

/// A defect that a test can put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "constructed by tests only"))]
pub(crate) enum Hazard {
    /// A-PC-43: any state may follow any.
    AnyChange,
    /// A scan displaces what is used often: every page goes to the main queue at once.
    ScanDisplaces,
    /// X28: shrinking keeps the memory.
    KeepsMemory,
    /// X30: a copy begins at the start of its piece.
    OffsetIgnored,
    /// A-PC-10, X33: an operation for which there is no memory is forgotten.
    ForgottenWithoutMemory,
    /// A-PC-24, pattern 28: a write does not wait for the read of its page.
    OverReading,
    /// A-PC-28: who came last to a page is served first.
    LastFirst,
    /// A-PC-42, X14: a page whose read failed is valid.
    FailedReadStays,
    /// A-PC-27, X29: a write whose page could not be read is forgotten.
    ForgottenReader,
    /// Pattern 25: what the device does not have of its last page is left as it was.
    StaleTail,
    /// A-PC-19: a page is not read before a part of it is written.
    NotReadFirst,
    /// A-PC-08, A-PC-45: a pin stays when its handle goes.
    PinLost,
    /// Writers never wait.
    NoLimit,
    /// Pattern 32: a page whose write-back failed is clean.
    FailedWriteClean,
    /// X15: a sync waits for one write-back only.
    NewestOnly,
    /// A sync is content with a flush that was under way.
    AnyFlush,
    /// A-PC-17: an error is told again and again.
    StickyError,
    /// X13: the age of pages is looked at once.
    TickedOnce,
    /// A-GEN-04, A-PC-41: a completion runs with the volume's lock held.
    CompletesUnderLock,
    /// A-PC-07: a chunk is allocated with the volume's lock held.
    AllocatesUnderLock,
    /// A-PC-11: who waits for a page displaces who did before.
    WaiterLost,
    /// A-PC-20: a write that ends where a page does takes the next one too.
    OnePageTooMany,
    /// Pattern 33: a page is pinned before it is read.
    PinnedUnread,
    /// X12: the lock stays taken when memory runs out.
    LockKept,
    /// A-PC-30, A-PC-35: an operation is completed twice.
    ToldTwice,
    /// Pattern 26: the volume goes with its last handle, whatever is dirty.
    DirtyDropped,
    /// A-PC-05: the volume stays when nobody has it.
    OrphanKept,
    /// A-PC-34: memory is freed with the volume's lock held.
    FreesUnderLock,
    /// A-PC-02 and others: something is allocated for an operation.
    Allocates,
    /// X34: memory that could not be had is used.
    MemoryIgnored,
    /// A medium that was changed is taken for the one before.
    MediumIgnored,
    /// A-PC-03: a page that was found in one hold of the lock is used in the next, whatever it is by then.
    FoundBefore,
    /// Those in line are told that there is no memory while another CPU is about to make some.
    StuckTooSoon,
    /// X31: memory that may fault is touched with the volume's lock held.
    UserUnderLock,
    /// Pattern 35: a page that is mapped for writing is clean when it has been written back.
    MappedTakenForClean,
    /// Pattern 31: a file is read beyond its end.
    EndIgnored,
    /// Pattern 36: a page of a file is called written before it is.
    WrittenBefore,
    /// Pattern 37: what is set aside is cached all the same.
    AsideIgnored,
    /// A-PC-26: the lock is held for as long as there are pages to be looked at.
    HeldForAll,
    /// A-PC-40: every write is an operation.
    AlwaysAnOperation,
    /// A volume takes pages from another's share.
    SharesTaken,
    /// A volume never gives others what it has beyond its share.
    SharesKept,
    /// Nothing is read ahead.
    NoReadAhead,
    /// The read-ahead is told of what is left of a read at its first page that is not there.
    RestNoted,
    /// A-PC-16: the memory of a read that never came back is used for another page.
    KeptUsedAgain,
    /// An error that a sync would have told is lost with its future.
    ErrorGoesWithItsFuture,
    /// A discard does not keep others away while the device has it.
    NoFence,
    /// A discard does not wait for a write-back that is under way.
    DiscardOvertakes,
}

undercroft_hal::put_back!(Hazard);
