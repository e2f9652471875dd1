//! What timer services are asked to do, and the rounds in which they do it.
//!
//! Time is in ticks, whatever a service's tick is. A million timers are outstanding, at times that are spread evenly over the next million
//! ticks; each has a number.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Timers outstanding.
pub const OUTSTANDING: u32 = 1_000_000;
/// Ticks over which they are spread.
pub const SPREAD: u64 = 1_000_000;
/// Timers besides, to start while those are outstanding.
const SPARE: u32 = 256;

/// A timer service.
pub trait Subject {
    /// For the table.
    const NAME: &'static str;
    /// An empty one, at tick 0, for timers with numbers below `room`.
    fn make(room: u32) -> Self;
    /// Starts timer `id`, which is not armed. `at` is a later tick.
    fn start(&mut self, id: u32, at: u64);
    /// Stops timer `id`, which is armed.
    fn stop(&mut self, id: u32);
    /// Lets time go on by one call, and adds the numbers of those that are due.
    fn expire(&mut self, to: u64, due: &mut Vec<u32>);
    /// When something will be due, for a timer interrupt to be set.
    fn next(&mut self) -> Option<u64>;
    /// What it has to say of itself: a case and a number.
    fn facts(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

/// A service with its timers outstanding.
pub struct Loaded<S> {
    subject: S,
    outstanding: u32,
    now: u64,
    random: Random,
    due: Vec<u32>,
}

/// What is done to a service with its timers outstanding.
pub trait Rounds {
    /// The service's.
    fn name(&self) -> &'static str;
    /// Starts of timers that were used a moment ago: nanoseconds for each.
    fn starts(&mut self, batches: usize) -> f64;
    /// Their stops.
    fn stops(&mut self, batches: usize) -> f64;
    /// Stops and starts of any of those outstanding: nanoseconds for each pair.
    fn pairs(&mut self, count: usize) -> f64;
    /// Lets `calls` times `ticks` go by: nanoseconds for each timer that was due. They are started again, and that is not counted.
    fn expiries(&mut self, calls: usize, ticks: u64) -> f64;
    /// Questions for the next event: nanoseconds for each.
    fn questions(&mut self, count: usize) -> f64;
    /// Lets `calls` ticks go by: the longest call of one tick, in nanoseconds of this thread's CPU time.
    fn longest(&mut self, calls: usize) -> f64;
    /// What the service has to say of itself: a case and a number.
    fn facts(&self) -> Vec<(&'static str, f64)>;
}

impl<S: Subject> Loaded<S> {
    /// Starts all.
    pub fn new(outstanding: u32, seed: u64) -> Self {
        let mut subject = S::make(outstanding + SPARE);
        let mut random = Random(seed);
        (0..outstanding).for_each(|id| subject.start(id, 1 + random.below(SPREAD)));
        Self { subject, outstanding, now: 0, random, due: Vec::new() }
    }

    /// Starts again what was due. How many that were.
    fn again(&mut self) -> usize {
        let count = self.due.len();
        for id in self.due.drain(..) {
            self.subject.start(id, self.now + 1 + self.random.below(SPREAD));
        }
        count
    }

    fn hot(&mut self, batches: usize) -> (f64, f64) {
        let (mut starts, mut stops) = (0, 0);
        for batch in 0..=batches {
            let at: Vec<u64> = (0..SPARE).map(|_| self.now + 1 + self.random.below(SPREAD)).collect();
            let begin = Instant::now();
            (self.outstanding..).zip(&at).for_each(|(id, &at)| self.subject.start(id, at));
            let middle = Instant::now();
            (self.outstanding..self.outstanding + SPARE).for_each(|id| self.subject.stop(id));
            let end = Instant::now();
            // The first brings into the cache what the others before it have driven out.
            if batch > 0 {
                starts += (middle - begin).as_nanos();
                stops += (end - middle).as_nanos();
            }
        }
        let count = (batches * SPARE as usize) as f64;
        (starts as f64 / count, stops as f64 / count)
    }
}

impl<S: Subject> Rounds for Loaded<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn starts(&mut self, batches: usize) -> f64 {
        self.hot(batches).0
    }

    fn stops(&mut self, batches: usize) -> f64 {
        self.hot(batches).1
    }

    fn pairs(&mut self, count: usize) -> f64 {
        let begin = Instant::now();
        for _ in 0..count {
            let id = self.random.below(u64::from(self.outstanding)) as u32;
            let at = self.now + 1 + self.random.below(SPREAD);
            self.subject.stop(id);
            self.subject.start(id, at);
        }
        begin.elapsed().as_nanos() as f64 / count as f64
    }

    fn expiries(&mut self, calls: usize, ticks: u64) -> f64 {
        let mut nanos = 0;
        for _ in 0..calls {
            self.now += ticks;
            let begin = Instant::now();
            self.subject.expire(self.now, &mut self.due);
            nanos += begin.elapsed().as_nanos();
        }
        let count = self.again();
        nanos as f64 / count.max(1) as f64
    }

    fn questions(&mut self, count: usize) -> f64 {
        let begin = Instant::now();
        for _ in 0..count {
            black_box(black_box(&mut self.subject).next());
        }
        begin.elapsed().as_nanos() as f64 / count as f64
    }

    fn longest(&mut self, calls: usize) -> f64 {
        let mut longest = Duration::ZERO;
        for _ in 0..calls {
            self.now += 1;
            let begin = cpu_time();
            self.subject.expire(self.now, &mut self.due);
            longest = longest.max(cpu_time().saturating_sub(begin));
            self.again();
        }
        longest.as_nanos() as f64
    }

    fn facts(&self) -> Vec<(&'static str, f64)> {
        self.subject.facts()
    }
}

/// What this thread has run for: others on the machine make no difference.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// Marsaglia's xorshift.
pub struct Random(pub u64);

impl Random {
    /// A number below `end`, which is small beside 2^32.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) * end) >> 32
    }
}
