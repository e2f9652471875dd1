//! The same on ours.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use undercroft_hal::{BottomHalf, Task};
use undercroft_timer::{Callout, Completion, Expiry, Scope, StartError, Started, Stopped, timers};

use crate::crew::{Crew, Gate};
use crate::lab::Lab;
use crate::ours::{END, End, LATER, Object, SOON, at};
use crate::watch::Watch;

/// What the handlers of a connection work on.
struct Pcb {
    freed: Arc<AtomicUsize>,
}

impl Drop for Pcb {
    fn drop(&mut self) {
        self.freed.fetch_add(1, Ordering::SeqCst);
    }
}

/// A connection with three callouts that are due, and an interrupt at point `after` that tears it down. How often it was freed.
fn torn_down(after: usize, cpu: Option<usize>) -> Option<usize> {
    Lab::run(2, |lab, task| {
        timers::start_service(task);
        let watch = Arc::new(Watch::new());
        let freed = Arc::new(AtomicUsize::new(0));
        let pcb = Arc::new(Pcb { freed: Arc::clone(&freed) });
        let mut scope = Scope::new();
        let callouts = [0, 1, 2].map(|id| {
            let (object, pcb) = (Object::new(&watch, id), Arc::clone(&pcb));
            let callout = Callout::<BottomHalf>::new(0, move |_: &BottomHalf, expiry: &Expiry| {
                object.run(expiry, || assert_eq!(pcb.freed.load(Ordering::SeqCst), 0));
            });
            let _ = watch.armed(id, SOON);
            assert_eq!(callout.start_at(at(SOON)), Ok(Started::Armed));
            scope.add(&callout);
            callout
        });
        let ends = [0, 1, 2].map(|id| End::new(&watch, id));
        let theirs = ends.clone();
        let last = Completion::new(move |_: &BottomHalf| {
            theirs.iter().for_each(End::came);
            drop(pcb);
        });
        let connection = Mutex::new(Some((scope, callouts, last)));
        let intruder = Lab::intruder(task, move || {
            let taken = connection.lock().unwrap().take();
            if let Some((scope, callouts, last)) = taken {
                drop(callouts);
                scope.close_all_async(last);
            }
        });
        lab.strike(&intruder, after, cpu);
        lab.pass_to(SOON);
        let struck = !lab.call_off();
        lab.pass_to(END);
        watch.assert_clean();
        struck.then(|| {
            assert!(ends.iter().all(|end| end.times() == 1));
            freed.load(Ordering::SeqCst)
        })
    })
}

#[test]
fn t_01_teardown_of_three_callouts() {
    for cpu in [None, Some(1)] {
        let freed: Vec<_> = (0..).map_while(|after| torn_down(after, cpu)).collect();
        assert!(freed.len() > 10, "{} points are too few for three runs", freed.len());
        assert!(freed.iter().all(|&times| times == 1), "{freed:?}");
    }
}

/// Callouts on CPUs 1 to 3, of which those of `in_flight` run, each waiting at its gate.
struct Three {
    watch: Arc<Watch>,
    callouts: Vec<Callout<BottomHalf>>,
    gates: Vec<Gate>,
    in_flight: usize,
}

impl Three {
    fn new(crew: &Crew, task: &Task, in_flight: usize) -> Self {
        timers::start_service(task);
        let watch = Arc::new(Watch::new());
        let gates: Vec<_> = (0..3).map(|_| Gate::default()).collect();
        let callouts: Vec<_> = (0..3)
            .map(|id| {
                let (object, gate) = (Object::new(&watch, id), gates[id].clone());
                let callout = Callout::<BottomHalf>::new(id + 1, move |_: &BottomHalf, expiry: &Expiry| {
                    object.run(expiry, || gate.pass());
                });
                let when = if in_flight & 1 << id != 0 { SOON } else { END };
                let _ = watch.armed(id, when);
                assert_eq!(callout.start_at(at(when)), Ok(Started::Armed));
                callout
            })
            .collect();
        crew.advance(SOON);
        crew.until(task, || (0..3).all(|id| in_flight & 1 << id == 0 || gates[id].reached()));
        Self { watch, callouts, gates, in_flight }
    }

    fn runs(&self, id: usize) -> bool {
        self.in_flight & 1 << id != 0
    }
}

/// Every pattern of runs in flight, the first of which ends in the middle: as many completions as were promised, and one end for all.
#[test]
fn t_02_drain_async_counting() {
    for in_flight in 0..8 {
        Crew::run(4, |crew, task| {
            let three = Three::new(crew, task, in_flight);
            let ends: Vec<_> = (0..3).map(|id| End::new(&three.watch, id)).collect();
            for (id, end) in ends.iter().enumerate() {
                let drained = three.callouts[id].drain_async(end.completion());
                assert_eq!(
                    end.heard(drained),
                    !three.runs(id),
                    "given back if and only if there is nothing to wait for"
                );
                three.gates[0].open();
            }
            three.gates.iter().for_each(Gate::open);
            crew.until(task, || ends.iter().all(|end| end.times() > 0));
            crew.advance(END);
            crew.until(task, || true);
            assert!(ends.iter().all(|end| end.times() == 1), "pattern {in_flight}");
            three.watch.assert_clean();
        });
        Crew::run(4, |crew, task| {
            let three = Three::new(crew, task, in_flight);
            let mut scope = Scope::new();
            three.callouts.iter().for_each(|callout| scope.add(callout));
            let end = Arc::new(AtomicUsize::new(0));
            let theirs = Arc::clone(&end);
            scope.close_all_async(Completion::new(move |_: &BottomHalf| {
                theirs.fetch_add(1, Ordering::SeqCst);
            }));
            three.gates.iter().for_each(Gate::open);
            crew.until(task, || end.load(Ordering::SeqCst) > 0);
            assert_eq!(end.load(Ordering::SeqCst), 1, "pattern {in_flight}");
            three.watch.assert_clean();
        });
    }
}

/// The handler arms its callout again, and is drained by the completion, by the future and by a task.
#[test]
fn t_04_drain_of_running_and_armed_again() {
    Crew::run(3, |crew, task| {
        timers::start_service(task);
        let watch = Arc::new(Watch::new());
        let (object, gate, armed) = (Object::new(&watch, 0), Gate::default(), Arc::new(AtomicBool::new(false)));
        let (their_gate, theirs) = (gate.clone(), Arc::clone(&armed));
        let callout = Callout::<BottomHalf>::new(1, move |_: &BottomHalf, expiry: &Expiry| {
            object.run(expiry, || {
                let started = expiry.callout().start_at(at(LATER));
                theirs.store(started == Ok(Started::ParkedInFlight), Ordering::SeqCst);
                their_gate.pass();
            });
        });
        let _ = watch.armed(0, SOON);
        let _ = callout.start_at(at(SOON)).unwrap();
        crew.advance(SOON);
        crew.until(task, || gate.reached());
        assert!(armed.load(Ordering::SeqCst));
        let end = End::new(&watch, 0);
        assert!(!end.heard(callout.drain_async(end.completion())), "it runs");
        assert_eq!(callout.start_at(at(LATER)), Err(StartError::Draining), "T-06, T-32");
        assert_eq!((end.times(), callout.is_armed()), (0, false));
        gate.open();
        crew.until(task, || end.times() == 1);
        crew.advance(END);
        crew.until(task, || true);
        assert_eq!((watch.runs(0), callout.stop()), (1, Stopped::NotArmed));
        watch.assert_clean();
    });
}

/// Two drains, by whom ever: each has its completion.
#[test]
fn t_05_second_drain() {
    Crew::run(4, |crew, task| {
        let three = Three::new(crew, task, 0b001);
        let ends = [0, 1].map(|_| End::new(&three.watch, 0));
        for end in &ends {
            assert!(!end.heard(three.callouts[0].drain_async(end.completion())));
        }
        three.gates[0].open();
        crew.until(task, || ends.iter().all(|end| end.times() == 1));
        three.watch.assert_clean();
    });
}

/// I-8: time passes at any point of an executor's turn, and something else becomes due. No handler is told of a time before its deadline.
#[test]
fn i_08_no_handler_sees_a_time_before_its_deadline() {
    let seen = |after| {
        Lab::run(2, |lab, task| {
            timers::start_service(task);
            let watch = Arc::new(Watch::new());
            let callouts = [0, 1, 2].map(|id| {
                let object = Object::new(&watch, id);
                let handler = move |_: &BottomHalf, expiry: &Expiry| object.run(expiry, || ());
                let callout = Callout::<BottomHalf>::new(0, handler);
                let deadline = SOON + id as u64 * 10_000;
                let _ = watch.armed(id, deadline);
                assert_eq!(callout.start_at(at(deadline)), Ok(Started::Armed));
                callout
            });
            lab.strike_with_time(50_000, after);
            lab.pass_to(SOON);
            let struck = !lab.call_off();
            lab.pass_to(END);
            assert_eq!([0, 1, 2].map(|id| watch.runs(id)), [1; 3]);
            watch.assert_clean();
            drop(callouts);
            struck
        })
    };
    assert!((0..).take_while(|&after| seen(after)).count() > 10);
}
