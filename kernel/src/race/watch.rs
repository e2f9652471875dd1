//! What one callout's handler sees, and what all of them count. Any context.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use undercroft_hal::Instant;
use undercroft_hal::context::{self, Kind};
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_timer::{Expiry, Stopped};

/// What happened.
#[derive(Default)]
pub(crate) struct Counts {
    starts: AtomicU64,
    refused: AtomicU64,
    runs: AtomicU64,
    /// By what the stop said.
    stops: [AtomicU64; 4],
    drains: AtomicU64,
    closes: AtomicU64,
    exact: AtomicU64,
    /// Handlers that exist.
    alive: AtomicU64,
    violations: AtomicU64,
    first: First,
}

/// The first violation's name.
struct First(IrqSpinLock<Option<&'static str>>);

impl Default for First {
    fn default() -> Self {
        Self(IrqSpinLock::new(Rank::CONSOLE, None))
    }
}

impl Counts {
    /// Something happened that must not.
    pub(super) fn violation(&self, what: &'static str) {
        self.violations.fetch_add(1, SeqCst);
        self.first.0.lock().get_or_insert(what);
    }

    pub(super) fn drained(&self) {
        self.drains.fetch_add(1, SeqCst);
    }

    pub(super) fn closed(&self) {
        self.closes.fetch_add(1, SeqCst);
    }

    pub(super) fn exactly_stopped(&self) {
        self.exact.fetch_add(1, SeqCst);
    }

    pub(super) fn started(&self, accepted: bool) {
        if accepted { &self.starts } else { &self.refused }.fetch_add(1, SeqCst);
    }

    pub(super) fn stopped(&self, stopped: Stopped) {
        let which = match stopped {
            Stopped::Cancelled => 0,
            Stopped::NotArmed => 1,
            Stopped::InFlight => 2,
            Stopped::CancelledNextInFlight => 3,
        };
        self.stops[which].fetch_add(1, SeqCst);
    }

    pub(super) fn alive(&self) -> u64 {
        self.alive.load(SeqCst)
    }

    /// How often a handler ran.
    pub(crate) fn runs(&self) -> u64 {
        self.runs.load(SeqCst)
    }

    /// How many violations there were, and the first.
    pub(crate) fn violations(&self) -> (u64, Option<&'static str>) {
        (self.violations.load(SeqCst), *self.first.0.lock())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: &AtomicU64| count.load(SeqCst);
        let [cancelled, not_armed, in_flight, both] = self.stops.each_ref().map(of);
        write!(f, "{} starts ({} refused), {} runs, ", of(&self.starts), of(&self.refused), of(&self.runs))?;
        write!(f, "stops: {cancelled} cancelled, {not_armed} not armed, {in_flight} in flight, {both} both; ")?;
        write!(f, "{} exact stops, {} drains, ", of(&self.exact), of(&self.drains))?;
        write!(f, "{} closes, {} violations", of(&self.closes), of(&self.violations))
    }
}

/// Watches one callout.
pub(super) struct Watch {
    counts: Arc<Counts>,
    running: AtomicBool,
    closed: AtomicBool,
    runs: AtomicU64,
}

impl Watch {
    pub(super) fn new(counts: &Arc<Counts>) -> Arc<Self> {
        Arc::new(Self {
            counts: Arc::clone(counts),
            running: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            runs: AtomicU64::new(0),
        })
    }

    /// For the handler: it is counted as long as it has this.
    pub(super) fn attend(self: &Arc<Self>) -> Attendant {
        self.counts.alive.fetch_add(1, SeqCst);
        Attendant(Arc::clone(self))
    }

    /// It was closed, and the wait for that is over.
    pub(super) fn close(&self) {
        if self.running.load(SeqCst) {
            self.counts.violation("a close returned while the handler ran");
        }
        self.closed.store(true, SeqCst);
        self.counts.closed();
    }

    /// How often the handler ran.
    pub(super) fn runs(&self) -> u64 {
        self.runs.load(SeqCst)
    }

    /// Whether the handler runs.
    pub(super) fn is_running(&self) -> bool {
        self.running.load(SeqCst)
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// The handler's end of a watch.
pub(super) struct Attendant(Arc<Watch>);

impl Attendant {
    pub(super) fn begin(&self, expiry: &Expiry) {
        let Watch { counts, running, closed, runs } = &*self.0;
        if running.swap(true, SeqCst) {
            counts.violation("a handler ran twice at a time");
        }
        if closed.load(SeqCst) {
            counts.violation("a handler ran after its callout was closed");
        }
        if Instant::now() < expiry.deadline() {
            counts.violation("a handler ran before its deadline");
        }
        runs.fetch_add(1, SeqCst);
        counts.runs.fetch_add(1, SeqCst);
    }

    pub(super) fn end(&self) {
        self.0.running.store(false, SeqCst);
    }

    pub(super) fn started(&self, accepted: bool) {
        self.0.counts.started(accepted);
    }

    /// In its own handler a stop finds itself in flight.
    pub(super) fn stopped(&self, stopped: Stopped) {
        self.0.counts.stopped(stopped);
        if !stopped.is_in_flight() {
            self.0.counts.violation("a handler's own stop did not find it in flight");
        }
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.0.counts
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        if context::current() == Kind::HardIrq {
            self.0.counts.violation("a handler was freed in a hard interrupt");
        }
        if self.0.running.load(SeqCst) {
            self.0.counts.violation("a handler was freed while it ran");
        }
        self.0.counts.alive.fetch_sub(1, SeqCst);
    }
}
