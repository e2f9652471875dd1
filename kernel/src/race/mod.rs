//! The race programme: every CPU starts, stops, moves, drains, closes and makes anew callouts that all CPUs share, at random times and for
//! times close by, while their handlers start themselves again; and what may never happen is looked for. Task context.
//!
//! Its model is the stress programme with which the races of callout migration were shown to be deadly: machines of 24 CPUs died daily.

mod seats;
mod watch;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::task::Poll;

use undercroft_hal::clock::Duration;
use undercroft_hal::executor::{self, JoinHandle};
use undercroft_hal::{BottomHalf, HardIrq, Instant, Task, cpu};
use undercroft_timer::{Callout, Next};

use crate::pattern::Random;
use seats::{Exact, Private, Seats};
pub(crate) use watch::Counts;
use watch::Watch;

/// Callouts that all CPUs share.
const SHARED: usize = 32;
/// Operations between two looks at the queues.
const TURN: u32 = 16;
/// How long everything may take to end, once it is told to.
const PATIENCE: Duration = Duration::from_secs(5);
/// How far away deadlines are at most, in nanoseconds.
const AWAY: u64 = 300_000;

/// What the CPUs share.
struct Arena {
    seats: Seats,
    counts: Arc<Counts>,
    over: AtomicBool,
    running: AtomicUsize,
}

/// Runs the programme on all CPUs. `tick` is called about each second with the counts so far.
pub(crate) fn run(cx: &Task, time: Duration, seed: u64, mut tick: impl FnMut(&Counts)) -> Arc<Counts> {
    let counts = Arc::new(Counts::default());
    let cpus = cpu::count();
    let arena = Arc::new(Arena {
        seats: Seats::new(SHARED, &counts, seed),
        counts: Arc::clone(&counts),
        over: AtomicBool::new(false),
        running: AtomicUsize::new(cpus),
    });
    let begun = Instant::now();
    let tasks: Vec<JoinHandle<()>> = (0..cpus)
        .filter_map(|here| executor::spawn_on(cx, here, player(Arc::clone(&arena), here, seed)).ok())
        .collect();
    if tasks.len() < cpus {
        counts.violation("an executor has no room for the programme");
        arena.running.fetch_sub(cpus - tasks.len(), Ordering::Release);
    }
    // The waiting task is woken now and then: that, too, is a callout.
    let Some(pulse) = Pulse::new(cpu::current()) else { return counts };
    let mut told = begun;
    pulse.until(cx, || {
        if told.elapsed() > Duration::from_secs(1) {
            told = Instant::now();
            tick(&counts);
        }
        begun.elapsed() >= time
    });
    arena.over.store(true, Ordering::Relaxed);
    let ended = Instant::now();
    pulse.until(cx, || arena.running.load(Ordering::Acquire) == 0 || ended.elapsed() > PATIENCE);
    if arena.running.load(Ordering::Acquire) > 0 {
        counts.violation("a drain or a close did not end");
        return counts;
    }
    cx.block_on(arena.seats.clear());
    // What ended in hard interrupts is freed by a bottom half a little later.
    let cleared = Instant::now();
    pulse.until(cx, || counts.alive() == 0 || cleared.elapsed() > PATIENCE);
    if counts.alive() > 0 {
        counts.violation("a closed callout was not freed");
    }
    counts
}

/// Lets others run before it goes on.
async fn pause() {
    let mut first = true;
    poll_fn(|cx| {
        if core::mem::take(&mut first) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

/// One CPU's part.
async fn player(arena: Arc<Arena>, here: usize, seed: u64) {
    let mut random = Random::new(seed ^ (here as u64 + 1) << 32);
    let (mut private, exact) = (Private::new(&arena.counts, &mut random), Exact::new(here, &arena.counts));
    let mut turns = 0_u32;
    while !arena.over.load(Ordering::Relaxed) {
        match random.below(16) {
            0 => arena.seats.drain(&mut random).await,
            1 => arena.seats.replace(&mut random).await,
            2 => private.drain(&mut random).await,
            3..6 => exact.play(&mut random),
            6..10 => arena.seats.stop(&mut random),
            _ => arena.seats.start(&mut random),
        }
        turns = turns.wrapping_add(1);
        if turns.is_multiple_of(TURN) {
            pause().await;
        }
    }
    private.end().await;
    exact.end().await;
    drop(private);
    arena.running.fetch_sub(1, Ordering::Release);
}

/// Wakes a task of one CPU again and again.
struct Pulse {
    _callout: Callout<BottomHalf>,
    beats: Arc<AtomicU64>,
}

impl Pulse {
    fn new(here: usize) -> Option<Self> {
        const PERIOD: Duration = Duration::from_millis(20);
        let beats = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&beats);
        let callout = Callout::new(here, move |_: &BottomHalf, _: &_| {
            theirs.fetch_add(1, Ordering::Relaxed);
            Next::Every(PERIOD)
        });
        let _ = callout.start(PERIOD).ok()?;
        Some(Self { _callout: callout, beats })
    }

    /// Asks at each beat.
    fn until(&self, cx: &Task, mut over: impl FnMut() -> bool) {
        loop {
            let seen = self.beats.load(Ordering::Relaxed);
            if over() {
                return;
            }
            cx.wait_until(|| self.beats.load(Ordering::Relaxed) != seen);
        }
    }
}

/// A time close by.
fn soon(random: &mut Random) -> Instant {
    Instant::now() + Duration::from_nanos(random.below(AWAY))
}

/// A handler that does a little, and looks.
fn handler(watch: &Arc<Watch>, random: &mut Random) -> impl FnMut(&undercroft_timer::Expiry) -> Next + Send + 'static {
    let (watch, mut random) = (watch.attend(), Random::new(random.next()));
    move |expiry| {
        watch.begin(expiry);
        // Long enough for others to come in between.
        for _ in 0..random.below(200) {
            core::hint::spin_loop();
        }
        let next = match random.below(16) {
            0 => Next::After(Duration::from_nanos(random.below(AWAY))),
            1 => Next::Every(Duration::from_micros(50 + random.below(100))),
            2 => Next::At(expiry.now()),
            3 => {
                watch.started(expiry.callout().start_at(soon(&mut random)).is_ok());
                Next::Done
            }
            4 => {
                watch.stopped(expiry.callout().stop());
                Next::Done
            }
            _ => Next::Done,
        };
        watch.end();
        next
    }
}

/// A callout at a level by chance.
fn any(home: usize, watch: &Arc<Watch>, random: &mut Random) -> Box<dyn seats::Subject> {
    let mut run = handler(watch, random);
    match random.below(3) {
        0 => Box::new(Callout::<HardIrq>::new(home, move |_: &HardIrq, expiry: &_| run(expiry))),
        1 => Box::new(Callout::<BottomHalf>::new(home, move |_: &BottomHalf, expiry: &_| run(expiry))),
        _ => Box::new(Callout::<Task>::new(home, move |_: &_, expiry: &_| run(expiry))),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
