//! Historic hazards that tests put back, to show that the same check catches them. Outside this crate's own tests there are none:
//! [`Defects::has`] is `false` at compile time.

/// A hazard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Defect {
    /// Any interrupt counts as the end of the command: neither the controller's bit nor the drive's status is looked at (X04).
    TrustsInterrupts = 1 << 0,
    /// A command is issued for more than its table covers (X05).
    IssuesBeyondTable = 1 << 1,
    /// Regions may cross 64 KiB (X05).
    CrossesBoundary = 1 << 2,
    /// Addresses are cut to 32 bits (X05).
    CutsAddresses = 1 << 3,
    /// The bottom half writes messages that it formats on the heap (A-ATA-02).
    FormatsOnHeap = 1 << 4,
    /// The bottom half waits in place until a command is over (A-ATA-03).
    WaitsInPlace = 1 << 5,
    /// An error is made on the heap (A-ATA-04, A-ATA-05).
    BoxesErrors = 1 << 6,
    /// All of a command's blocks are moved in one go (A-ATA-06).
    MovesAllBlocks = 1 << 7,
    /// A completion runs while its request is still at the front (A-ATA-07).
    CompletesAtFront = 1 << 8,
    /// After a part that failed the next is issued all the same (A-ATA-08).
    GoesOnAfterError = 1 << 9,
    /// The interrupt handler makes an error on the heap (A-ATA-10).
    BoxesInInterrupt = 1 << 10,
    /// The first drive is always asked first.
    FirstDriveFirst = 1 << 11,
    /// A drive is asked what it is without waiting until it is not busy.
    AsksTooEarly = 1 << 12,
    /// A flush is reported as done without being performed.
    FakesFlush = 1 << 13,
    /// The controller's error and active bits are not looked at.
    TrustsDrive = 1 << 14,
    /// A command without an interrupt is taken for finished when the drive looks idle.
    TrustsIdle = 1 << 15,
    /// What is kept of a request is on the heap, freed by whoever finishes it (A-ATA-09).
    BoxesRequests = 1 << 16,
    /// The first drive is taken to be selected by a reset.
    TrustsSelection = 1 << 17,
    /// A sector's number is cut to 32 bits (X27).
    CutsSectors = 1 << 18,
    /// A drive without sectors is a disk (P-19).
    AcceptsEmpty = 1 << 19,
}

undercroft_hal::defects!(Defect as u32);
