//! Counters of one CPU's callouts.

/// Buckets of the histogram of lateness: bucket n counts runs that were less than 2^n µs late and not less than 2^(n-1).
pub const LATE_BUCKETS: usize = 24;
/// A handler that runs longer than this, in nanoseconds, is counted as slow.
pub const SLOW: u64 = 1_000_000;
/// An alarm that is later than this, in nanoseconds, is a jump of the clock: the machine was stopped.
pub const JUMP: u64 = 500_000_000;

/// What one CPU's wheel has seen. All counts are since the service's first use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Callouts armed now.
    pub armed: u64,
    /// Handlers in flight now.
    pub in_flight: u64,
    /// Starts.
    pub started: u64,
    /// Handlers run.
    pub fired: u64,
    /// Runs that were cancelled or replaced before they began.
    pub cancelled: u64,
    /// Drains and closes that found the handler in flight.
    pub drains: u64,
    /// Runs by lateness: see [`LATE_BUCKETS`].
    pub late: [u64; LATE_BUCKETS],
    /// Handlers that ran longer than [`SLOW`] nanoseconds.
    pub slow: u64,
    /// The longest run of a handler, in nanoseconds.
    pub longest_handler: u64,
    /// Handlers that unwound.
    pub panicked: u64,
    /// Times that a lock-bound callout found its lock held.
    pub contended: u64,
    /// Nodes that were moved from one slot of the wheel to a finer one.
    pub cascades: u64,
    /// The most nodes that one step of the wheel touched.
    pub most_touched: u64,
    /// Periods that were left out because they were past.
    pub missed: u64,
    /// Times that the alarm's handler gave up for a while, because what it set was past again and again (W-22).
    pub hangs: u64,
    /// Jumps of the clock of more than [`JUMP`] nanoseconds, and the longest.
    pub jumps: u64,
    /// In nanoseconds.
    pub longest_jump: u64,
}

impl Stats {
    pub(crate) fn late(&mut self, nanos: u64) {
        let micros = nanos / 1000;
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.late[bucket.min(LATE_BUCKETS - 1)] += 1;
    }

    pub(crate) fn handler_took(&mut self, nanos: u64) {
        self.longest_handler = self.longest_handler.max(nanos);
        self.slow += u64::from(nanos > SLOW);
    }
}
