//! What a driver did against the specifications.

use undercroft_hal::hosted::BadAccess;

/// A breach by the driver, with the section that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// ATA 7.1 to 7.13: wrote command block register `.0` while BSY or DRQ was set (status `.1`).
    WriteWhileBusy(u8, u8),
    /// ATA 6.2: read or wrote the data register without DRQ.
    DataWithoutDrq,
    /// ATA 7.4: accessed a register with the wrong width (its number).
    Width(u8),
    /// ATA 6.2: an addressing command without the LBA bit in the device register.
    NotLba(u8),
    /// ATA 6.2: a command (its code) that the drive says it does not have.
    Unsupported(u8),
    /// ATA 6.2: a command (its code) for a range beyond the capacity that the drive gave.
    OutOfRange(u8),
    /// ATA 8.29: READ or WRITE MULTIPLE without a successful SET MULTIPLE MODE.
    MultipleNotSet,
    /// ATA 8.29: SET MULTIPLE MODE with a count that the drive does not have.
    MultipleCount(u8),
    /// ATA 9.2: SRST was asserted for so many nanoseconds, less than 5 microseconds.
    ResetPulse(u64),
    /// ATA 9.2: a command block register was read so many nanoseconds after SRST ended, less than 2 milliseconds.
    ResetNotAwaited(u64),
    /// ACS-2 7.10: DATA SET MANAGEMENT without TRIM, without blocks, or with more than the drive takes.
    TrimShape(u16, u16),
    /// A command to a drive that is not there (its code).
    NobodyThere(u8),
    /// BM 3.1: started with the function's bus mastering off.
    NotBusMaster,
    /// BM 1.2: the table's address is not a multiple of 4.
    TableAlignment(u32),
    /// BM 1.2: the table crosses a 64 KiB boundary.
    TableCrosses(u32),
    /// BM 1.2: a table without an end.
    TableEndless,
    /// BM 3.1: started with a table that covers nothing for the command in progress.
    TableEmpty,
    /// BM 1.2: a region's address or length is odd.
    RegionOdd(u32, u16),
    /// BM 1.2: a region crosses a 64 KiB boundary.
    RegionCrosses(u32, u16),
    /// BM 1.2: reserved bits of a table's entry.
    Reserved(u16),
    /// BM 3.1: the regions are so many bytes shorter (negative) or longer than the transfer.
    TableLength(i64),
    /// BM 2.1: the direction is not the command's (its code).
    Direction(u8),
    /// BM 2.1: changed the direction or the table's address while the engine ran.
    ChangedWhileActive,
    /// BM 3.1: started without a DMA command in progress when the next one began.
    StartedEarly(u8),
    /// Named memory that no driver holds for DMA, or freed it while the device used it.
    Memory(BadAccess),
}

impl From<BadAccess> for Breach {
    fn from(bad: BadAccess) -> Self {
        Self::Memory(bad)
    }
}
