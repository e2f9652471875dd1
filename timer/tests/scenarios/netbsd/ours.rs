//! The same window on ours: an interrupt at every point of the executor's way, on its own CPU and from another.

use std::sync::{Arc, Mutex};

use undercroft_hal::context::{self, Kind};
use undercroft_hal::sync::IrqSpinLock;
use undercroft_hal::{BottomHalf, HardIrq, Task};
use undercroft_timer::{Callout, Expiry, Guarded, Level, Next, Started, Stopped, timers};

use crate::lab::Lab;
use crate::ours::{CLIENT, END, End, LATER, Object, SOON, at};
use crate::watch::Watch;

const TCB: usize = 0;

/// What the interrupt found, and how it all went.
#[derive(Debug, Default, Clone)]
struct Seen {
    stopped: Option<Stopped>,
    started: Option<Started>,
    /// The handler had run, or begun to.
    begun: bool,
    runs: u32,
    ends: usize,
}

/// What an interrupt does with the callout.
type Deed = fn(&Callout<BottomHalf>, &Watch, &Mutex<Seen>);

fn stops(callout: &Callout<BottomHalf>, watch: &Watch, seen: &Mutex<Seen>) {
    let begun = watch.runs(TCB) > 0;
    let stopped = callout.stop();
    watch.cancelled(TCB);
    let mut seen = seen.lock().unwrap();
    (seen.stopped, seen.begun) = (Some(stopped), begun);
}

fn starts(callout: &Callout<BottomHalf>, watch: &Watch, seen: &Mutex<Seen>) {
    let begun = watch.runs(TCB) > 0;
    let _ = watch.armed(TCB, LATER);
    let started = callout.start_at(at(LATER)).unwrap();
    let mut seen = seen.lock().unwrap();
    (seen.started, seen.begun) = (Some(started), begun);
}

fn starts_then_stops(callout: &Callout<BottomHalf>, watch: &Watch, seen: &Mutex<Seen>) {
    starts(callout, watch, seen);
    stops(callout, watch, seen);
}

/// A connection whose callout is due, and an interrupt at point `after` that does `deed`, and then ends the connection if `closes`.
fn struck(after: usize, cpu: Option<usize>, deed: Deed, closes: bool) -> Option<Seen> {
    Lab::run(2, |lab, task| {
        timers::start_service(task);
        let watch = Arc::new(Watch::new());
        let end = End::new(&watch, TCB);
        let object = Object::new(&watch, TCB);
        let callout = Callout::<BottomHalf>::new(0, move |_: &BottomHalf, expiry: &Expiry| {
            object.run(expiry, || {
                undercroft_hal::Instant::now();
            });
        });
        let _ = watch.armed(TCB, SOON);
        assert_eq!(callout.start_at(at(SOON)), Ok(Started::Armed));
        let connection = Arc::new(Mutex::new(Some((callout, end.completion()))));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let theirs = (Arc::clone(&connection), Arc::clone(&seen), Arc::clone(&watch), end.clone());
        let intruder = Lab::intruder(task, move || {
            let (connection, seen, watch, end) = &theirs;
            let Some((callout, last)) = connection.lock().unwrap().take() else { return };
            deed(&callout, watch, seen);
            if closes {
                end.heard(callout.close_async(last));
            } else {
                *connection.lock().unwrap() = Some((callout, last));
            }
        });
        lab.strike(&intruder, after, cpu);
        lab.pass_to(SOON);
        let struck = !lab.call_off();
        lab.pass_to(END);
        drop(connection.lock().unwrap().take());
        lab.settle();
        watch.assert_clean();
        let seen = Seen { runs: watch.runs(TCB), ends: end.times(), ..seen.lock().unwrap().clone() };
        struck.then_some(seen)
    })
}

/// All points, on the executor's own CPU and on another.
fn at_every_point(deed: Deed, closes: bool) -> Vec<Seen> {
    let all = [None, Some(1)].map(|cpu| (0..).map_while(|after| struck(after, cpu, deed, closes)).collect::<Vec<_>>());
    assert!(all.iter().all(|seen| seen.len() > 5), "points that are none of the executor's");
    all.concat()
}

/// In the window: committed, and the handler not begun.
fn windows(all: &[Seen], stopped: Stopped) -> usize {
    all.iter().filter(|seen| seen.stopped == Some(stopped) && !seen.begun).count()
}

#[test]
fn t_15_the_window_on_one_cpu() {
    let all = at_every_point(stops, true);
    assert!(windows(&all, Stopped::InFlight) > 0, "the window is one of the points");
    assert!(all.iter().all(|seen| seen.ends == 1), "{all:?}");
}

/// The memory of a callout that was dropped in the window goes to others, whose callouts run when they are due, and once.
#[test]
fn t_16_no_new_owner_gets_a_linked_node() {
    let reused = |after| {
        Lab::run(1, |lab, task| {
            timers::start_service(task);
            let watch = Arc::new(Watch::new());
            let make = |id, nanos| {
                let object = Object::new(&watch, id);
                let handler = move |_: &BottomHalf, expiry: &Expiry| object.run(expiry, || ());
                let callout = Callout::<BottomHalf>::new(0, handler);
                let _ = watch.armed(id, nanos);
                assert_eq!(callout.start_at(at(nanos)), Ok(Started::Armed));
                callout
            };
            let _neighbours = [make(1, SOON), make(2, LATER)];
            let doomed = Mutex::new(Some(make(TCB, SOON)));
            let intruder = Lab::intruder(task, move || drop(doomed.lock().unwrap().take()));
            lab.strike(&intruder, after, None);
            lab.pass_to(SOON);
            let struck = !lab.call_off();
            let _new_owners = [make(3, SOON + 1), make(4, LATER)];
            lab.pass_to(END);
            assert_eq!([1, 2, 3, 4].map(|id| watch.runs(id)), [1; 4]);
            watch.assert_clean();
            assert_eq!(timers::stats(0).armed, 0);
            struck
        })
    };
    assert!((0..).take_while(|&after| reused(after)).count() > 5);
}

/// Cure 1: each handler runs at the level of its callout's type. What is called in the hard interrupt is in no window at all.
#[test]
fn t_17_execution_level() {
    fn at_level<L: Level>(after: usize) -> Option<(Vec<Kind>, bool)> {
        Lab::run(1, |lab, task| {
            timers::start_service(task);
            let kinds = Arc::new(Mutex::new(Vec::new()));
            let theirs = Arc::clone(&kinds);
            let callout = Arc::new(Callout::<L>::new(0, move |_: &L::Token, _: &Expiry| {
                undercroft_hal::Instant::now();
                theirs.lock().unwrap().push(context::current());
            }));
            assert_eq!(callout.start_at(at(SOON)), Ok(Started::Armed));
            let (theirs, window) = (Arc::clone(&callout), Arc::new(Mutex::new(false)));
            let in_window = Arc::clone(&window);
            let intruder = Lab::intruder(task, move || *in_window.lock().unwrap() |= theirs.is_running());
            lab.strike(&intruder, after, None);
            lab.pass_to(SOON);
            task.run_pending();
            let struck = !lab.call_off();
            let seen = (kinds.lock().unwrap().clone(), *window.lock().unwrap());
            struck.then_some(seen)
        })
    }
    let levels = [at_level::<HardIrq>, at_level::<BottomHalf>, at_level::<Task>];
    for (at_level, kind) in levels.into_iter().zip([Kind::HardIrq, Kind::BottomHalf, Kind::Task]) {
        let all: Vec<_> = (0..).map_while(at_level).collect();
        assert!(!all.is_empty() && all.iter().all(|(kinds, _)| *kinds == [kind]), "{kind:?}: {all:?}");
        assert_eq!(all.iter().any(|(_, in_flight)| *in_flight), kind != Kind::HardIrq, "{kind:?}");
    }
}

/// Cure 2: a start in the window takes nothing back. What was in flight is in flight, and the start is the next request, which the stop cancels.
#[test]
fn t_18_no_start_erases_the_run_in_flight() {
    let all = at_every_point(starts_then_stops, true);
    assert!(windows(&all, Stopped::CancelledNextInFlight) > 0);
    assert!(all.iter().all(|seen| seen.ends == 1 && seen.runs <= 1), "{all:?}");
}

/// Nobody acknowledges: the completion comes when the handler has returned, not before, and always.
#[test]
fn t_19_only_the_executor_ends_a_run() {
    let ended = |after| {
        Lab::run(1, |lab, task| {
            timers::start_service(task);
            let watch = Arc::new(Watch::new());
            let (object, end) = (Object::new(&watch, TCB), End::new(&watch, TCB));
            let handler = move |_: &BottomHalf, expiry: &Expiry| {
                // The level falls in the middle of it, as far as it can: interrupts come and go.
                object.run(expiry, || (0..3).for_each(|_| _ = undercroft_hal::Instant::now()));
            };
            let callout = Callout::<BottomHalf>::new(0, handler);
            let _ = watch.armed(TCB, SOON);
            assert_eq!(callout.start_at(at(SOON)), Ok(Started::Armed));
            let connection = Mutex::new(Some((callout, end.completion())));
            let (theirs, inside) = (end.clone(), Arc::new(Mutex::new(false)));
            let in_handler = Arc::clone(&inside);
            let intruder = Lab::intruder(task, move || {
                let taken = connection.lock().unwrap().take();
                if let Some((callout, last)) = taken {
                    *in_handler.lock().unwrap() = callout.is_running();
                    // `End` objects if the handler runs still.
                    theirs.heard(callout.close_async(last));
                }
            });
            lab.strike(&intruder, after, None);
            lab.pass_to(SOON);
            let struck = !lab.call_off();
            lab.pass_to(END);
            watch.assert_clean();
            let seen = (end.times(), *inside.lock().unwrap());
            struck.then_some(seen)
        })
    };
    let all: Vec<_> = (0..).map_while(ended).collect();
    assert!(all.iter().filter(|(_, inside)| *inside).count() > 3, "in the middle of the handler");
    assert!(all.iter().all(|(times, _)| *times == 1), "{all:?}");
}

/// Armed anew in the window, a callout without a lock is told that this run is not what was asked for last; and runs when it was.
#[test]
fn t_20_a_replaced_expiry_knows_that_it_is() {
    let all = at_every_point(starts, false);
    let parked = |seen: &&Seen| seen.started == Some(Started::ParkedInFlight) && !seen.begun;
    assert!(all.iter().filter(parked).count() > 0);
    // A run that was told counts for nothing: what counts are runs at or after the time that was asked for last.
    assert!(all.iter().filter(parked).all(|seen| seen.runs == 1), "{all:?}");
}

/// With a lock there is no such run at all: one handler, at the later time, wherever the interrupt strikes.
#[test]
fn t_20_a_lock_bound_callout_runs_once_and_in_time() {
    let runs = |after| {
        Lab::run(1, |lab, task| {
            timers::start_service(task);
            let lock = Arc::new(IrqSpinLock::new(CLIENT, Vec::new()));
            let handler = |_: &BottomHalf, runs: &mut Vec<u64>, expiry: &Expiry| {
                runs.push(expiry.now().as_nanos());
                Next::Done
            };
            let callout = Arc::new(Guarded::<_, BottomHalf>::new(0, Arc::clone(&lock), handler).unwrap());
            assert_eq!(callout.start_at(at(SOON)), Ok(Started::Armed));
            let (theirs, their_lock) = (Arc::clone(&callout), Arc::clone(&lock));
            let begun = Arc::new(Mutex::new(None));
            let note = Arc::clone(&begun);
            let intruder = Lab::intruder(task, move || {
                let mut runs = their_lock.lock();
                let stopped = theirs.stop(&mut runs).unwrap();
                assert!(!stopped.is_in_flight(), "with the lock held: {stopped:?}");
                let _ = theirs.start_at(at(LATER)).unwrap();
                *note.lock().unwrap() = Some(!runs.is_empty());
            });
            lab.strike(&intruder, after, None);
            lab.pass_to(SOON);
            let struck = !lab.call_off();
            lab.pass_to(END);
            let begun = *begun.lock().unwrap();
            struck.then(|| (begun, lock.lock().clone()))
        })
    };
    let all: Vec<_> = (0..).map_while(runs).collect();
    assert!(all.len() > 5);
    for (begun, runs) in &all {
        let first = usize::from(*begun == Some(true));
        assert!(runs.len() == first + 1 && runs[first] >= LATER, "{runs:?}");
    }
    assert!(all.iter().any(|(begun, _)| *begun == Some(false)));
}

/// Whoever does not listen to the answer frees nothing: the handler keeps what it uses.
#[test]
fn t_21_an_answer_that_nobody_hears() {
    let unheard: Deed = |callout, _, _| _ = callout.stop();
    let _ = at_every_point(unheard, true);
}
