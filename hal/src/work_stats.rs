//! What a CPU's queues have done: counts, and how long work waited. Any context; reading is a snapshot.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::clock::{Duration, Instant};
use crate::context::Kind;
use crate::{cpu, system};

/// Waiting times by powers of two of nanoseconds: the last bucket holds everything from half a second up.
pub const BUCKETS: usize = 30;

/// One queue's counters. The queue's consumer writes most of them, producers only `queued`.
#[derive(Debug)]
pub(crate) struct Counters {
    queued: AtomicU32,
    ran: AtomicU32,
    deepest: AtomicU32,
    exhausted: AtomicU64,
    waited: [AtomicU32; BUCKETS],
}

/// A queue's counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueStats {
    /// Items queued and not yet taken.
    pub depth: u32,
    /// The most items that were ever found waiting.
    pub deepest: u32,
    /// Items taken. Wraps at 2^32.
    pub ran: u32,
    /// How often a batch was used up with work left.
    pub exhausted: u64,
    /// How many items waited 2^k to 2^(k+1) nanoseconds.
    pub waited: [u32; BUCKETS],
}

impl Counters {
    pub(crate) const fn new() -> Self {
        Self {
            queued: AtomicU32::new(0),
            ran: AtomicU32::new(0),
            deepest: AtomicU32::new(0),
            exhausted: AtomicU64::new(0),
            waited: [const { AtomicU32::new(0) }; BUCKETS],
        }
    }

    /// An item is about to be pushed, by any producer.
    #[inline]
    pub(crate) fn queued(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    /// The consumer took an item that was queued at `since`. Only the consumer writes these, so loads and stores will do.
    #[inline]
    pub(crate) fn took(&self, since: Instant) {
        let ran = self.ran.load(Ordering::Relaxed);
        let depth = self.queued.load(Ordering::Relaxed).wrapping_sub(ran);
        if depth > self.deepest.load(Ordering::Relaxed) {
            self.deepest.store(depth, Ordering::Relaxed);
        }
        self.ran.store(ran.wrapping_add(1), Ordering::Relaxed);
        let bucket = &self.waited[bucket(since.elapsed())];
        bucket.store(bucket.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// A batch ended with work left.
    pub(crate) fn exhausted(&self) {
        self.exhausted.fetch_add(1, Ordering::Relaxed);
    }

    fn snapshot(&self) -> QueueStats {
        let ran = self.ran.load(Ordering::Relaxed);
        QueueStats {
            depth: self.queued.load(Ordering::Relaxed).wrapping_sub(ran),
            deepest: self.deepest.load(Ordering::Relaxed),
            ran,
            exhausted: self.exhausted.load(Ordering::Relaxed),
            waited: core::array::from_fn(|at| self.waited[at].load(Ordering::Relaxed)),
        }
    }
}

fn bucket(waited: Duration) -> usize {
    let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
    (nanos.checked_ilog2().unwrap_or(0) as usize).min(BUCKETS - 1)
}

/// The counters of a CPU's queue: its bottom halves ([`Kind::BottomHalf`]) or its run queue ([`Kind::Task`]). `None` for what has no queue.
pub fn queue_stats(cpu: usize, queue: Kind) -> Option<QueueStats> {
    if cpu >= cpu::count() {
        return None;
    }
    system::with(|system| {
        let cpu = system.cpus.get(cpu)?;
        match queue {
            Kind::BottomHalf => Some(cpu.bottom_half_counters.snapshot()),
            Kind::Task => Some(cpu.task_counters.snapshot()),
            Kind::HardIrq => None,
        }
    })
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::BottomHalf;
    use crate::hosted::Cpus;
    use crate::work::{Turn, Work};
    use std::vec::Vec;

    #[test]
    fn waiting_times_fall_in_their_buckets() {
        for (nanos, want) in [(0, 0), (1, 0), (2, 1), (1023, 9), (1024, 10), (u64::MAX, BUCKETS - 1)] {
            assert_eq!(bucket(Duration::from_nanos(nanos)), want, "{nanos}");
        }
    }

    #[test]
    fn runs_depth_and_exhaustion_are_counted() {
        Cpus::new(1).run(0, |task| {
            let off = crate::dispatch::BottomHalvesOff::new();
            let works: Vec<_> = (0..200).map(|_| Work::new(0, |_: &BottomHalf| Turn::Done)).collect();
            works.iter().for_each(Work::schedule);
            let before = queue_stats(0, Kind::BottomHalf).unwrap();
            assert_eq!((before.depth, before.ran), (200, 0));
            std::thread::sleep(Duration::from_millis(3));
            drop(off);
            // A batch each.
            while crate::work::pending(Kind::BottomHalf) {
                task.run_pending();
            }
            let after = queue_stats(0, Kind::BottomHalf).unwrap();
            assert_eq!((after.depth, after.ran, after.deepest), (0, 200, 200));
            assert!(after.exhausted >= 1, "200 items are more than a batch");
            assert_eq!(after.waited.iter().sum::<u32>(), 200);
            assert_eq!(after.waited[..20].iter().sum::<u32>(), 0, "each waited for milliseconds");
        });
        assert_eq!(Cpus::new(1).run(0, |_| queue_stats(7, Kind::Task)), None);
    }
}
