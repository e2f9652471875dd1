//! What the scenarios on our own interface share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use undercroft_hal::sync::{self, Rank};
use undercroft_hal::{BottomHalf, Instant};
use undercroft_timer::{Completion, Drained, Expiry};

use crate::watch::Watch;

/// A time, in nanoseconds. The machines start at one millisecond.
pub fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

/// The time that scenarios arm for first: soon after the start, and a whole number of the wheel's ticks.
pub const SOON: u64 = 1 << 20;
/// And much later.
pub const LATER: u64 = 500 << 20;
/// When all is over.
pub const END: u64 = 2000 << 20;

/// Of a lock that interrupt handlers and callouts take.
pub const CLIENT: Rank = Rank::new(30);

/// What a handler works on: it belongs to the handler, and tells the watch when it goes.
pub struct Object {
    watch: Arc<Watch>,
    id: usize,
}

impl Object {
    pub fn new(watch: &Arc<Watch>, id: usize) -> Self {
        Self { watch: Arc::clone(watch), id }
    }

    pub fn id(&self) -> usize {
        self.id
    }

    /// A run of the handler, as the watch sees it.
    pub fn run<R>(&self, expiry: &Expiry, work: impl FnOnce() -> R) -> R {
        let (deadline, now) = (expiry.deadline().as_nanos(), expiry.now().as_nanos());
        let _ = self.watch.begins_for(self.id, deadline, now, || expiry.superseded());
        let result = work();
        let _ = self.watch.ends(self.id);
        result
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let _ = self.watch.freed(self.id);
    }
}

/// The end of a callout, as its client gets to know it, and how often.
#[derive(Clone)]
pub struct End {
    watch: Arc<Watch>,
    id: usize,
    times: Arc<AtomicUsize>,
}

impl End {
    pub fn new(watch: &Arc<Watch>, id: usize) -> Self {
        Self { watch: Arc::clone(watch), id, times: Arc::default() }
    }

    /// The callout is over.
    pub fn came(&self) {
        let _ = self.watch.over(self.id);
        self.times.fetch_add(1, Ordering::SeqCst);
    }

    /// A completion that says so.
    pub fn completion(&self) -> Completion {
        let this = self.clone();
        Completion::new(move |_: &BottomHalf| {
            sync::assert_unlocked("a completion runs");
            this.came();
        })
    }

    /// What a drain answered: if there was nothing to wait for, this is the end, and no completion comes.
    pub fn heard(&self, drained: Drained) -> bool {
        let now = matches!(drained, Drained::Now(_));
        if now {
            self.came();
        }
        now
    }

    pub fn times(&self) -> usize {
        self.times.load(Ordering::SeqCst)
    }
}
