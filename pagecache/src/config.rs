//! How a volume's cache behaves, and what it has seen.

use core::time::Duration;

/// How a volume's cache behaves. Everything that it needs but the pages themselves is allocated when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Pages of 4 KiB at most: the budget, rounded up to 16.
    pub pages: u32,
    /// Operations at once; further ones are refused.
    pub operations: u16,
    /// Pages pinned at once.
    pub pins: u16,
    /// Handles ([`Volume::another`](crate::Volume::another)), each told of errors for itself.
    pub handles: u16,
    /// Bytes of one write-back, cut to what the device takes: each has a buffer of so many.
    pub transfer: u32,
    /// Bytes of one read, cut to what the device takes. Reads go into the pages themselves, and have no buffers.
    pub read: u32,
    /// Reads at the device at once.
    pub reads: u16,
    /// Write-backs at the device at once.
    pub writes: u16,
    /// How often the age of dirty pages is looked at.
    pub tick: Duration,
    /// A page is written back when it has been dirty for so many ticks: 1 to 15.
    pub age: u8,
    /// Writers wait when so many percent of the budget are dirty or on their way.
    pub dirty_percent: u8,
    /// Write-back begins, whatever the age, when so many percent are dirty.
    pub background_percent: u8,
    /// The pause after a failed write-back: it doubles from the first to the second.
    pub retry: (Duration, Duration),
    /// Pages read ahead of one reader at most; no more than half of the budget.
    pub ahead: u32,
}

impl Default for Config {
    /// 16 MiB of pages; 64 operations, 64 pins, 16 handles; 8 reads of up to 512 KiB and 4 write-backs of up to 128 KiB; written back after 5 seconds, or when a tenth
    /// is dirty; writers wait at two fifths; pauses of 0.1 to 30 seconds; 1 MiB is read ahead, and never more than half of the pages.
    fn default() -> Self {
        Self {
            pages: 4096,
            operations: 64,
            pins: 64,
            handles: 16,
            transfer: 128 << 10,
            read: 512 << 10,
            reads: 8,
            writes: 4,
            tick: Duration::from_secs(1),
            age: 5,
            dirty_percent: 40,
            background_percent: 10,
            retry: (Duration::from_millis(100), Duration::from_secs(30)),
            ahead: 256,
        }
    }
}

/// What a volume's cache has seen and has now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Pages that were there when an operation came for them.
    pub hits: u64,
    /// Pages that were not, or were on their way.
    pub misses: u64,
    /// Pages evicted.
    pub evictions: u64,
    /// Pages read from the device, and the requests that took.
    pub pages_read: u64,
    /// Requests that read.
    pub reads: u64,
    /// Pages written to the device.
    pub pages_written: u64,
    /// Requests that wrote.
    pub writes: u64,
    /// Flushes sent.
    pub flushes: u64,
    /// Pages read ahead.
    pub ahead: u64,
    /// Of those, pages that were used.
    pub ahead_used: u64,
    /// Of those, pages that were evicted unused.
    pub ahead_wasted: u64,
    /// Requests that read and failed.
    pub read_errors: u64,
    /// Write-backs and flushes that failed.
    pub write_errors: u64,
    /// Times that a writer had to wait for write-back.
    pub throttled: u64,
    /// Pages with memory now.
    pub pages: u32,
    /// Pages that are clean now.
    pub clean: u32,
    /// Pages with changes that are not on their way now.
    pub dirty: u32,
    /// Pages that are on their way to the device now.
    pub writing: u32,
    /// Pages that are on their way from the device now.
    pub reading: u32,
    /// Operations under way now.
    pub operations: u16,
}
