//! A programme for callouts of every level on a simulated machine: starts, stops, drains, closes, periods, time.
//!
//! Each four bytes are something to do. What may run is kept beside each callout: nothing runs early, twice, after a stop that cancelled it or
//! after its close, and what is due has run when the machine has come to rest.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use undercroft_hal::clock::{Duration, Instant};
use undercroft_hal::{BottomHalf, HardIrq, Task, cpu};
use undercroft_hosts::{Config, Machine, Schedule};
use undercroft_timer::{Callout, Completion, DrainError, Drained, Expiry, Next, Started, Stopped, timers};

use crate::Bytes;

const COUNT: usize = 6;
/// A deadline is served within its tick and some spins.
const TICK: u64 = 4096;

/// What is known of a callout.
#[derive(Debug, Default, Clone, Copy)]
struct Known {
    /// The deadline it is armed for, if it is, and one it is being armed for.
    armed: Option<u64>,
    arming: Option<u64>,
    /// Its handler arms it itself, so that the deadline is the handler's.
    by_itself: bool,
    /// What the handler answers.
    answer: u8,
    running: bool,
    closed: bool,
    runs: u64,
}

type Shared = Arc<Mutex<Known>>;

fn known(shared: &Shared) -> MutexGuard<'_, Known> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ran(shared: &Shared, expiry: &Expiry) -> Next {
    let (deadline, now) = (expiry.deadline().as_nanos(), Instant::now().as_nanos());
    let known = &mut *known(shared);
    assert!(!known.running, "a handler runs twice at a time");
    assert!(!known.closed, "a handler runs after its close");
    assert!(deadline <= expiry.now().as_nanos() && expiry.now().as_nanos() <= now, "a handler runs early");
    let expected = known.by_itself || [known.armed, known.arming].contains(&Some(deadline));
    assert!(expected, "a handler runs for {deadline}, which is none of {known:?}");
    known.runs += 1;
    if known.arming == Some(deadline) {
        known.arming = None;
    }
    known.armed = None;
    let delay = Duration::from_nanos(u64::from(known.answer >> 2) << 9 | 1);
    let next = match known.answer & 3 {
        1 => Next::After(delay),
        2 => Next::Every(delay),
        _ => Next::Done,
    };
    known.by_itself = next != Next::Done;
    next
}

enum Any {
    Hard(Callout<HardIrq>),
    Bottom(Callout<BottomHalf>),
    Task(Callout<Task>),
}

macro_rules! any {
    ($any:expr, $callout:ident => $e:expr) => {
        match $any {
            Any::Hard($callout) => $e,
            Any::Bottom($callout) => $e,
            Any::Task($callout) => $e,
        }
    };
}

struct One {
    callout: Any,
    shared: Shared,
}

impl One {
    fn new(number: usize) -> Self {
        let shared = Shared::default();
        let mine = Arc::clone(&shared);
        let callout = match number % 3 {
            0 => Any::Hard(Callout::new(number, move |_, expiry: &Expiry| ran(&mine, expiry))),
            1 => Any::Bottom(Callout::new(number, move |_, expiry: &Expiry| ran(&mine, expiry))),
            // Only the first CPU has tasks.
            _ => Any::Task(Callout::new(0, move |_, expiry: &Expiry| ran(&mine, expiry))),
        };
        Self { callout, shared }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        known(&self.shared)
    }

    fn start(&self, at: u64, how: u8, answer: u8) {
        let when = Instant::from_nanos(at);
        {
            let mut known = self.known();
            (known.arming, known.answer) = (Some(at), answer);
        }
        let started = any!(&self.callout, callout => match how % 4 {
            0 => callout.start_if_armed(when),
            1 => callout.start_if_sooner(when),
            2 => callout.start_here(when).map(Some),
            _ => callout.start_at(when).map(Some),
        });
        let mut known = self.known();
        match started {
            // It may have run already.
            Ok(Some(Started::Armed | Started::Replaced | Started::ParkedInFlight)) => {
                if let Some(at) = known.arming.take() {
                    (known.armed, known.by_itself) = (Some(at), false);
                }
            }
            Ok(None) => known.arming = None,
            Err(error) => panic!("a start is refused: {error:?}"),
        }
    }

    fn stop(&self) {
        let before = self.known().runs;
        let stopped = any!(&self.callout, callout => callout.stop());
        let mut known = self.known();
        if stopped == Stopped::NotArmed {
            assert!(known.armed.is_none() || known.runs != before, "an armed callout was not stopped: {known:?}");
        }
        if !stopped.is_in_flight() {
            (known.armed, known.by_itself) = (None, false);
        }
    }

    fn drain(&self, task: &Task) {
        let drained = any!(&self.callout, callout => callout.drain(task));
        let mut known = self.known();
        assert!(!known.running && drained.is_ok_and(|stopped| !stopped.is_in_flight()), "not drained: {drained:?}");
        (known.armed, known.by_itself) = (None, false);
    }

    fn end(self, how: u8, task: &Task, told: &Arc<AtomicU32>) -> u32 {
        let more = Arc::clone(told);
        let completion = Completion::new(move |_| _ = more.fetch_add(1, Ordering::Relaxed));
        let told_later = match how % 3 {
            0 => {
                let closed: Result<(), DrainError> = any!(self.callout, callout => callout.close(task));
                assert_eq!(closed, Ok(()));
                0
            }
            1 => match any!(self.callout, callout => callout.close_async(completion)) {
                Drained::Now(_) => 0,
                Drained::Later => 1,
            },
            _ => {
                any!(self.callout, callout => drop(callout));
                0
            }
        };
        if told_later == 0 {
            known(&self.shared).closed = true;
        }
        told_later
    }
}

fn rest(task: &Task, all: &[Option<One>]) {
    // A lazy machine delivers nothing unless the guest waits.
    for _ in 0..100 {
        cpu::relax();
        task.run_pending();
    }
    let now = Instant::now().as_nanos();
    for one in all.iter().flatten() {
        let known = *one.known();
        let due = known.armed.is_some_and(|at| at.saturating_add(TICK) < now);
        assert!(!due, "a callout is due since {:?} and has not run at {now}", known.armed);
        let armed = any!(&one.callout, callout => callout.is_armed());
        assert!(known.armed.is_none() || armed, "a callout is armed and does not know");
    }
}

/// A programme for callouts.
///
/// # Panics
/// If a handler runs when it must not, or does not when it must.
pub fn callouts(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let how = bytes.u8();
    let schedule = [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM][usize::from(how % 3)];
    let config =
        Config { ram: 1 << 16, cpus: 1 + usize::from(how >> 4 & 1), seed: how.into(), schedule, ..Config::default() };
    let machine = Machine::new(config);
    machine.advance(1 << ((how >> 2 & 3) * 16));
    machine.run(|task| programme(task, &machine, &mut bytes));
}

fn programme(task: &Task, machine: &Rc<Machine>, bytes: &mut Bytes<'_>) {
    timers::start_service(task);
    let told = Arc::new(AtomicU32::new(0));
    let expected = Cell::new(0);
    let mut all: Vec<Option<One>> = (0..COUNT).map(|number| Some(One::new(number))).collect();
    while !bytes.is_empty() {
        let (what, which, value) = (bytes.u8(), bytes.u8(), bytes.u16());
        let number = usize::from(which) % COUNT;
        let time = u64::from(value >> 6) << (value & 31);
        let now = Instant::now().as_nanos();
        let slot = &mut all[number];
        match (what % 16, slot.as_ref()) {
            (0..6, Some(one)) => one.start(now.saturating_add(time), which >> 3, what >> 4 << 2),
            (6, Some(one)) => one.start(now.saturating_add(time), 3, (what >> 4 << 2) | (1 + which % 2)),
            (7, Some(one)) => one.start(now.saturating_sub(time), 3, 0),
            (8 | 9, Some(one)) => one.stop(),
            (10, Some(one)) => one.drain(task),
            (11, Some(_)) => {
                let ended = slot.take().map_or(0, |one| one.end(which >> 3, task, &told));
                expected.set(expected.get() + ended);
            }
            (11, None) => *slot = Some(One::new(number)),
            (12, _) => machine.advance(time.min(1 << 30)),
            (13, _) => {
                // Up to the next event, and over it.
                let at = timers::next_event(0).map_or(0, |at| at.as_nanos().saturating_sub(now));
                machine.advance(at.min(1 << 36));
            }
            _ => rest(task, &all),
        }
    }
    rest(task, &all);
    all.iter().flatten().for_each(One::stop);
    rest(task, &all);
    for one in all.into_iter().flatten() {
        expected.set(expected.get() + one.end(0, task, &told));
    }
    // The other CPU too has to do what it was asked for: what is queued when a machine ends is never freed.
    for _ in 0..50 {
        task.run_pending();
        cpu::relax();
    }
    assert_eq!(told.load(Ordering::Relaxed), expected.get(), "completions of closes");
}
