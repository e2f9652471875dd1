//! Real threads as CPUs, for the sanitizer and for their own sake: callouts that go from CPU to CPU while others stop, drain and make them anew.
//!
//! What a handler uses is a plain number. Whoever drained uses it too: the sanitizer sees whether that is allowed.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::vec::Vec;

use undercroft_hal::clock::{Duration, Instant};
use undercroft_hal::cpu;
use undercroft_hal::hosted::Cpus;
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::{BottomHalf, HardIrq, Task};

use crate::*;

const CPUS: usize = 3;

#[derive(Default)]
struct Payload(UnsafeCell<u64>);

// SAFETY: shared on purpose: callouts are to see to it that one thread at a time uses it.
unsafe impl Sync for Payload {}

impl Payload {
    fn touch(&self) {
        // SAFETY: the handler, or who drained it and keeps others from starting it.
        unsafe { *self.0.get() += 1 };
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

struct Object<L: Level> {
    callout: Callout<L>,
    payload: Arc<Payload>,
}

fn object<L: Level>(home: usize, runs: &Arc<AtomicU64>) -> Object<L> {
    let payload = Arc::new(Payload::default());
    let (theirs, runs) = (Arc::clone(&payload), Arc::clone(runs));
    let callout = Callout::new(home, move |_, expiry| {
        assert!(expiry.now() >= expiry.deadline(), "early");
        theirs.touch();
        runs.fetch_add(1, SeqCst);
        if expiry.deadline().as_nanos().is_multiple_of(3) { Next::Every(Duration::from_micros(7)) } else { Next::Done }
    });
    Object { callout, payload }
}

/// One CPU's part with its own object, which runs anywhere.
fn own<L: Level>(task: &Task, rounds: u64, index: usize, runs: &Arc<AtomicU64>) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (index as u64 + 1));
    let mut mine = object::<L>(index, runs);
    for _ in 0..rounds {
        let at = Instant::now() + Duration::from_nanos(random.below(30_000));
        match random.below(7) {
            0 | 1 => _ = mine.callout.start_on(random.below(CPUS as u64) as usize, at),
            2 => _ = mine.callout.start_at(at),
            3 => _ = mine.callout.stop(),
            4 => {
                let _ = mine.callout.drain(task).unwrap();
                // Nobody else starts it.
                mine.payload.touch();
            }
            5 => {
                let old = core::mem::replace(&mut mine, object(random.below(CPUS as u64) as usize, runs));
                let _ = old.callout.start_here(at);
                old.callout.close(task).unwrap();
                old.payload.touch();
            }
            _ => cpu::relax(),
        }
        task.run_pending();
    }
    mine.callout.close(task).unwrap();
    mine.payload.touch();
}

/// One CPU's part with what all share.
fn shared(task: &Task, rounds: u64, index: usize, all: &Together) {
    let mut random = Random(0x2545_f491_4f6c_dd1d ^ (index as u64 + 1));
    for _ in 0..rounds {
        let at = Instant::now() + Duration::from_nanos(random.below(30_000));
        let to = random.below(CPUS as u64) as usize;
        match random.below(6) {
            0 | 1 => _ = all.free.start_on(to, at),
            2 => _ = all.bound.start_on(to, at),
            3 => {
                let mut guard = all.lock.lock();
                let before = *guard;
                let stopped = all.bound.stop(&mut guard).unwrap();
                assert!(!stopped.is_in_flight(), "exact");
                assert_eq!(*guard, before);
            }
            4 => {
                let done = Arc::clone(&all.completed);
                match all.free.drain_async(Completion::new(move |_| _ = done.fetch_add(1, SeqCst))) {
                    Drained::Now(completion) => drop(completion),
                    Drained::Later => _ = all.accepted.fetch_add(1, SeqCst),
                }
            }
            _ => _ = all.free.stop(),
        }
        task.run_pending();
    }
}

struct Together {
    free: Callout<Task>,
    lock: Arc<IrqSpinLock<u64>>,
    bound: Guarded<IrqSpinLock<u64>, HardIrq>,
    accepted: AtomicUsize,
    completed: Arc<AtomicUsize>,
}

fn programme(rounds: u64, hazard: Option<crate::broken::Hazard>) {
    let cpus = Cpus::new(CPUS);
    let together: Arc<Mutex<Option<Arc<Together>>>> = Arc::default();
    let (at_work, over) = (AtomicUsize::new(CPUS), AtomicBool::new(false));
    let runs = Arc::new(AtomicU64::new(0));
    cpus.run(0, |task| {
        timers::start_service(task);
        let lock = Arc::new(IrqSpinLock::new(Rank::DEVICE, 0));
        let bound = Guarded::new(1, Arc::clone(&lock), |_: &HardIrq, data: &mut u64, _: &Expiry| *data += 1).unwrap();
        let free = Callout::new(2, |_, _| ());
        let (accepted, completed) = (AtomicUsize::new(0), Arc::default());
        *together.lock().unwrap() = Some(Arc::new(Together { free, lock, bound, accepted, completed }));
    });
    std::thread::scope(|threads| {
        for index in 0..CPUS {
            let (cpus, together, at_work, over, runs) = (&cpus, &together, &at_work, &over, &runs);
            threads.spawn(move || {
                let part = || {
                    cpus.run(index, |task| {
                        let all = together.lock().unwrap().clone().unwrap();
                        match index {
                            0 => own::<BottomHalf>(task, rounds, index, runs),
                            1 => own::<HardIrq>(task, rounds, index, runs),
                            _ => own::<Task>(task, rounds, index, runs),
                        }
                        shared(task, rounds, index, &all);
                        drop(all);
                        at_work.fetch_sub(1, SeqCst);
                        if index == 0 {
                            while at_work.load(SeqCst) > 0 {
                                task.run_pending();
                                cpu::relax();
                            }
                            let all =
                                together.lock().unwrap().take().and_then(|all| Arc::try_unwrap(all).ok()).unwrap();
                            all.free.close(task).unwrap();
                            all.bound.close(task).unwrap();
                            while all.completed.load(SeqCst) < all.accepted.load(SeqCst) {
                                task.run_pending();
                                cpu::relax();
                            }
                            assert_eq!(all.completed.load(SeqCst), all.accepted.load(SeqCst));
                            over.store(true, SeqCst);
                            (0..CPUS).for_each(cpu::kick);
                        } else {
                            task.wait_until(|| over.load(SeqCst));
                        }
                        task.run_pending();
                    });
                };
                match hazard {
                    Some(hazard) => crate::broken::with(hazard, part),
                    None => part(),
                }
            });
        }
    });
    cpus.run(0, |_| {
        let stats: Vec<_> = (0..CPUS).map(timers::stats).collect();
        assert!(stats.iter().all(|stats| stats.armed == 0 && stats.in_flight == 0), "{stats:?}");
    });
    assert!(runs.load(SeqCst) > 0);
}

#[test]
fn stress_i_01_to_i_06_on_three_cpus() {
    programme(if cfg!(sanitizer) { 2000 } else { 3000 }, None);
}

/// The sanitizer ends the program, so the program is another one.
#[cfg(sanitizer)]
#[test]
fn stress_control_a_drain_that_does_not_wait() {
    const MARK: &str = "UNDERCROFT_DRAIN_DOES_NOT_WAIT";
    if std::env::var_os(MARK).is_some() {
        programme(20_000, Some(crate::broken::Hazard::DrainDoesNotWait));
        return;
    }
    let this = std::env::current_exe().unwrap();
    let output = std::process::Command::new(this)
        .args(["--exact", "tests::stress::stress_control_a_drain_that_does_not_wait", "--nocapture"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("WARNING: ThreadSanitizer: data race"), "not caught: {text}");
}
