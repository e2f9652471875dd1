//! The same on ours: handlers that do anything to their own callout and to others, and three CPUs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::{BottomHalf, Instant};
use undercroft_timer::{Callout, Expiry, Next, StartError, Started, Stopped, timers};

use crate::crew::{Crew, Gate};
use crate::lab::Lab;
use crate::ours::{END, End, LATER, Object, SOON, at};
use crate::solo::{Solo, done, nothing};
use crate::watch::Watch;

/// A handler that arms its own callout again, in both ways that there are.
fn again(expiry: &Expiry) -> Next {
    let _ = expiry.callout().start_at(at(LATER));
    Next::At(at(LATER))
}

#[test]
fn t_33_stop_and_drain_are_two_things() {
    Crew::run(3, |crew, task| {
        let solo = Solo::running(crew, task, 1, nothing, done);
        assert_eq!(solo.callout.stop(), Stopped::InFlight, "does not wait, and says so");
        let (theirs, watch) = (Arc::clone(&solo.callout), Arc::clone(&solo.watch));
        let drained = crew.ask(task, 2, move |task| {
            let answer = theirs.drain(task);
            // The watch objects if the handler runs.
            let _ = watch.over(0);
            answer
        });
        crew.until(task, || timers::stats(1).drains == 1);
        (0..1000).for_each(|_| assert!(drained.try_take().is_none()));
        solo.gates[0].open();
        assert_eq!(crew.join(task, &drained), Ok(Stopped::InFlight));
        solo.watch.assert_clean();
    });
}

/// T-34: closed while its handler arms it again, before that (`early`) or after; by completion, by future, by call, by dropping it.
#[test]
fn t_34_handler_arms_its_callout_again() {
    for early in [true, false] {
        for way in 0..4 {
            Crew::run(3, |crew, task| {
                let before = move |expiry: &Expiry| _ = early.then(|| again(expiry));
                let solo = Solo::running(crew, task, 1, before, again);
                let (callout, solo) = solo.into_callout();
                let end = End::new(&solo.watch, 0);
                let mut waits = None;
                match way {
                    0 => assert!(!end.heard(callout.close_async(end.completion()))),
                    1 => {
                        let (closed, theirs) = (callout.closed(), end.clone());
                        waits = Some(crew.ask(task, 2, move |task| {
                            assert!(task.block_on(closed).is_in_flight());
                            theirs.came();
                        }));
                    }
                    2 => {
                        let theirs = end.clone();
                        waits = Some(crew.ask(task, 2, move |task| {
                            assert!(callout.close(task).is_ok());
                            theirs.came();
                        }));
                        crew.until(task, || timers::stats(1).drains == 1);
                    }
                    _ => drop(callout),
                }
                solo.gates[0].open();
                crew.until(task, || solo.runs() == 1 && (way == 3 || end.times() == 1));
                if let Some(waits) = waits {
                    crew.join(task, &waits);
                }
                crew.advance(END);
                crew.until(task, || timers::stats(1).in_flight == 0);
                assert_eq!((timers::stats(1).armed, timers::stats(1).fired), (0, 1));
                solo.watch.assert_clean();
            });
        }
    }
}

/// Armed again by somebody else while it runs: what was removed and what runs are two facts.
#[test]
fn t_35_running_and_armed_again() {
    Crew::run(2, |crew, task| {
        let solo = Solo::running(crew, task, 1, nothing, done);
        assert_eq!(solo.callout.start_at(at(LATER)), Ok(Started::ParkedInFlight));
        assert_eq!(solo.callout.stop(), Stopped::CancelledNextInFlight);
        assert_eq!(solo.callout.start_at(at(LATER)), Ok(Started::ParkedInFlight));
        let end = End::new(&solo.watch, 0);
        assert!(!end.heard(solo.callout.drain_async(end.completion())), "something was removed, and it runs");
        solo.gates[0].open();
        crew.until(task, || end.times() == 1);
        solo.watch.assert_clean();
    });
}

/// The end is declared when the handler has returned, and what it captured goes after that.
#[test]
fn t_36_the_core_declares_the_end() {
    Lab::run(1, |lab, task| {
        timers::start_service(task);
        let story = Arc::new(Mutex::new(Vec::new()));
        struct Captured(Arc<Mutex<Vec<&'static str>>>);
        impl Drop for Captured {
            fn drop(&mut self) {
                self.0.lock().unwrap().push("freed");
            }
        }
        let captured = Captured(Arc::clone(&story));
        let (handle, theirs) = (Arc::new(Mutex::new(None::<Callout>)), Arc::clone(&story));
        let own = Arc::clone(&handle);
        let callout = Callout::<BottomHalf>::new(0, move |_: &BottomHalf, _: &Expiry| {
            let end = Arc::clone(&theirs);
            let last = undercroft_timer::Completion::new(move |_: &BottomHalf| end.lock().unwrap().push("over"));
            if let Some(callout) = own.lock().unwrap().take() {
                let _ = callout.close_async(last);
            }
            // Says that it is done, and has instructions left.
            captured.0.lock().unwrap().push("says that it is done");
            Instant::now();
            captured.0.lock().unwrap().push("returns");
        });
        let _ = callout.start_at(at(SOON)).unwrap();
        *handle.lock().unwrap() = Some(callout);
        lab.pass_to(END);
        assert_eq!(*story.lock().unwrap(), ["says that it is done", "returns", "freed", "over"]);
    });
}

/// The handler drops its own handle, while others wait for the callout: they look at no memory of its.
#[test]
fn t_37_handler_drops_its_own_callout() {
    Crew::run(3, |crew, task| {
        let own = Arc::new(Mutex::new(None::<Arc<Callout>>));
        let theirs = Arc::clone(&own);
        let solo = Solo::running(crew, task, 1, nothing, move |_| {
            drop(theirs.lock().unwrap().take());
            Next::Every(std::time::Duration::from_millis(1))
        });
        let end = End::new(&solo.watch, 0);
        assert!(!end.heard(solo.callout.drain_async(end.completion())));
        let (callout, solo) = solo.into_callout();
        *own.lock().unwrap() = Some(Arc::new(callout));
        solo.gates[0].open();
        crew.until(task, || end.times() == 1 && timers::stats(1).in_flight == 0);
        crew.advance(END);
        crew.until(task, || true);
        assert_eq!((timers::stats(1).armed, timers::stats(1).fired), (0, 1));
        solo.watch.assert_clean();
    });
}

/// Three callouts are due. The first to run drops one of the others, whichever comes next or after that.
#[test]
fn t_38_handler_drops_the_next_of_the_list() {
    for victim in 1..3 {
        Lab::run(1, |lab, task| {
            timers::start_service(task);
            let watch = Arc::new(Watch::new());
            let handles = Arc::new(Mutex::new(Vec::new()));
            let order = Arc::new(Mutex::new(Vec::new()));
            for id in 0..3 {
                let (object, theirs, order) = (Object::new(&watch, id), Arc::clone(&handles), Arc::clone(&order));
                let callout = Callout::<BottomHalf>::new(0, move |_: &BottomHalf, expiry: &Expiry| {
                    object.run(expiry, || {
                        order.lock().unwrap().push(id);
                        if order.lock().unwrap().len() == 1 {
                            // No order is promised among those with one deadline: any of the others.
                            let handles: &mut Vec<Option<Callout>> = &mut theirs.lock().unwrap();
                            drop(handles[(id + victim) % 3].take());
                        }
                    });
                });
                let _ = watch.armed(id, SOON);
                let _ = callout.start_at(at(SOON)).unwrap();
                handles.lock().unwrap().push(Some(callout));
            }
            lab.pass_to(END);
            let order = order.lock().unwrap().clone();
            assert_eq!(order.len(), 2, "{order:?}");
            assert!(!order.contains(&((order[0] + victim) % 3)), "{order:?}");
            watch.assert_clean();
        });
    }
}

/// The handler arms its callout for now, for ever. Another that is due, a bottom half and a task have their turns all the same.
#[test]
fn t_39_handler_arms_its_callout_for_now() {
    Crew::run(2, |crew, task| {
        timers::start_service(task);
        let runs = Arc::new(AtomicUsize::new(0));
        let theirs = Arc::clone(&runs);
        let forever = Callout::<BottomHalf>::new(1, move |_: &BottomHalf, expiry: &Expiry| {
            theirs.fetch_add(1, Ordering::SeqCst);
            Next::At(expiry.now())
        });
        let (others, noted) = (Gate::default(), Arc::new(Mutex::new(0)));
        let (theirs, note, bottom_half) = (Arc::clone(&runs), Arc::clone(&noted), others.clone());
        bottom_half.open();
        let other = Callout::<BottomHalf>::new(1, move |_: &BottomHalf, _: &Expiry| {
            *note.lock().unwrap() = theirs.load(Ordering::SeqCst);
        });
        let _ = forever.start_at(at(SOON)).unwrap();
        let _ = other.start_at(at(SOON)).unwrap();
        let work = BottomHalfWork::new(1, move |_| {
            bottom_half.pass();
            Turn::Done
        });
        crew.advance(SOON);
        let count = || runs.load(Ordering::SeqCst);
        crew.until(task, || count() > 0);
        // Time stands still: now is the next tick.
        (0..1000).for_each(|_| task.run_pending());
        assert!(count() <= 2, "{}", count());
        crew.until(task, || {
            crew.advance(10_000);
            count() > 100
        });
        work.schedule();
        crew.until(task, || others.reached());
        let asked = crew.ask(task, 1, |_| ());
        crew.join(task, &asked);
        assert!(*noted.lock().unwrap() <= 2, "{noted:?}");
        assert!(forever.close(task).is_ok());
        let after = count();
        crew.advance(END);
        (0..1000).for_each(|_| task.run_pending());
        assert_eq!(count(), after);
    });
}

/// CPU 1 ends the handler, CPU 2 closes, CPU 3 starts the callout as fast as it can: nothing is armed when the close has returned.
#[test]
fn t_40_three_cpus() {
    for round in 0..30 {
        Crew::run(4, |crew, task| {
            let solo = Solo::running(crew, task, 1, nothing, done);
            let (theirs, stop) = (Arc::clone(&solo.callout), Gate::default());
            let until = stop.clone();
            let starts = crew.ask(task, 3, move |_| {
                let mut refused = 0;
                until.open();
                while refused < 100 {
                    match theirs.start_at(at(END + round)) {
                        Ok(_) => {}
                        Err(error) => {
                            assert!(matches!(error, StartError::Draining | StartError::Closed));
                            refused += usize::from(error == StartError::Closed);
                        }
                    }
                }
            });
            let mut scope = undercroft_timer::Scope::new();
            scope.add(&solo.callout);
            let closed = crew.ask(task, 2, move |task| scope.close_all(task));
            if round % 2 == 0 {
                crew.until(task, || timers::stats(1).drains > 0);
            }
            solo.gates[0].open();
            assert_eq!(crew.join(task, &closed), Ok(()));
            let _ = solo.watch.over(0);
            assert_eq!((solo.callout.is_armed(), solo.callout.is_running()), (false, false));
            crew.join(task, &starts);
            crew.advance(2 * END);
            crew.until(task, || true);
            assert_eq!((solo.runs().len(), timers::stats(1).armed), (1, 0));
            solo.watch.assert_clean();
        });
    }
}

/// The memory of a callout that was closed is another's by the time at which the closer looks, and that one runs.
#[test]
fn t_41_address_of_a_stranger() {
    Crew::run(3, |crew, task| {
        let solo = Solo::running(crew, task, 1, nothing, done);
        let (callout, solo) = solo.into_callout();
        let closed = crew.ask(task, 2, move |task| callout.close(task));
        crew.until(task, || timers::stats(1).drains == 1);
        let busy = Gate::default();
        let theirs = busy.clone();
        let work = BottomHalfWork::new(2, move |_| {
            theirs.pass();
            Turn::Done
        });
        work.schedule();
        crew.until(task, || busy.reached());
        solo.gates[0].open();
        crew.until(task, || solo.runs() == 1 && timers::stats(1).in_flight == 0);
        let strangers: Vec<_> = (0..8).map(|_| Gate::default()).collect();
        let callouts: Vec<_> = strangers
            .iter()
            .map(|gate| {
                let theirs = gate.clone();
                let callout = Callout::<BottomHalf>::new(1, move |_: &BottomHalf, _: &Expiry| theirs.pass());
                let _ = callout.start_at(at(0)).unwrap();
                callout
            })
            .collect();
        crew.until(task, || strangers.iter().any(Gate::reached));
        busy.open();
        assert_eq!(crew.join(task, &closed), Ok(()), "waits for no stranger");
        strangers.iter().for_each(Gate::open);
        drop(callouts);
        solo.watch.assert_clean();
    });
}
