//! The same on ours: while a handler runs on another CPU.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use undercroft_hal::BottomHalf;
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_timer::{Callout, Drained, Expiry, Next, Scope, StartError, Started, Stopped, timers};

use crate::crew::{Crew, Gate};
use crate::ours::{END, End, LATER, Object, SOON, at};
use crate::solo::{Solo, done, nothing};
use crate::watch::Watch;

/// A handler that moves its own callout.
fn moves(expiry: &Expiry) {
    assert_eq!(expiry.callout().start_on(2, at(LATER)), Ok(Started::ParkedInFlight));
}

/// Problem 1, and a request that is parked (T-26): the handler moves its callout to CPU 2 and is not done; CPU 2 closes it.
#[test]
fn t_22_t_26_close_of_a_callout_that_moves_itself() {
    Crew::run(3, |crew, task| {
        let solo = Solo::running(crew, task, 1, moves, done);
        assert_eq!(solo.callout.when(), Some(at(LATER)));
        let (callout, solo) = solo.into_callout();
        let returned = Arc::new(AtomicBool::new(false));
        let (theirs, judge) = (Arc::clone(&returned), Arc::clone(&solo.watch));
        let closed = crew.ask(task, 2, move |task| {
            let answer = callout.close(task);
            theirs.store(true, Ordering::SeqCst);
            let _ = judge.over(0);
            answer
        });
        crew.until(task, || timers::stats(1).drains == 1);
        for _ in 0..1000 {
            task.run_pending();
            assert!(!returned.load(Ordering::SeqCst), "returned while the handler runs");
        }
        solo.gates[0].open();
        assert_eq!(crew.join(task, &closed), Ok(()));
        crew.advance(END);
        crew.until(task, || true);
        assert_eq!((solo.runs(), timers::stats(2).armed, timers::stats(2).fired), (1, 0, 0));
        solo.watch.assert_clean();
    });
}

/// Problem 2: it becomes due on CPU 2 while it runs on CPU 1.
#[test]
fn t_25_running_here_and_due_there() {
    Crew::run(3, |crew, task| {
        let solo = Solo::running(crew, task, 1, nothing, done);
        let _ = solo.watch.armed(0, 2 * SOON);
        assert_eq!(solo.callout.start_on(2, at(2 * SOON)), Ok(Started::ParkedInFlight));
        crew.advance(LATER);
        for _ in 0..1000 {
            task.run_pending();
            assert_eq!(timers::stats(2).fired, 0);
        }
        solo.gates.iter().for_each(Gate::open);
        crew.until(task, || solo.runs().len() == 2);
        assert!(matches!(solo.runs()[..], [(1, _, true), (2, _, false)]));
        solo.watch.assert_clean();
    });
}

/// A stop takes the parked request back, says so, and says that the handler runs.
#[test]
fn t_27_stop_of_a_parked_request() {
    Crew::run(3, |crew, task| {
        let solo = Solo::running(crew, task, 1, moves, done);
        assert_eq!(solo.callout.stop(), Stopped::CancelledNextInFlight);
        assert_eq!((solo.callout.stop(), solo.callout.is_armed()), (Stopped::InFlight, false));
        solo.gates[0].open();
        crew.until(task, || !solo.callout.is_running());
        assert_eq!(solo.callout.stop(), Stopped::NotArmed);
        crew.advance(END);
        crew.until(task, || true);
        assert_eq!(solo.runs().len(), 1);
        solo.watch.assert_clean();
    });
}

/// The handler moves its callout, then drops the handle to it. What it works on stays until it has returned, and no longer.
#[test]
fn t_28_a_handler_that_drops_its_own_handle() {
    Crew::run(3, |crew, task| {
        timers::start_service(task);
        let (watch, handle) = (Arc::new(Watch::new()), Arc::new(std::sync::Mutex::new(None)));
        let (object, theirs, gate) = (Object::new(&watch, 0), Arc::clone(&handle), Gate::default());
        let (at_gate, guard) = (gate.clone(), Arc::new(()));
        let alive = Arc::downgrade(&guard);
        let callout = Callout::<BottomHalf>::new(1, move |_: &BottomHalf, expiry: &Expiry| {
            let _all_of_it = &guard;
            object.run(expiry, || {
                let _ = expiry.callout().start_on(2, at(LATER));
                drop(theirs.lock().unwrap().take());
                assert_eq!(expiry.callout().start_on(2, at(LATER)), Err(StartError::Closed));
                at_gate.pass();
            });
        });
        let _ = watch.armed(0, SOON);
        let _ = callout.start_at(at(SOON)).unwrap();
        *handle.lock().unwrap() = Some(callout);
        crew.advance(SOON);
        crew.until(task, || gate.reached());
        assert!(alive.upgrade().is_some());
        gate.open();
        crew.until(task, || alive.upgrade().is_none());
        crew.advance(END);
        crew.until(task, || true);
        assert_eq!(timers::stats(2).armed, 0);
        watch.assert_clean();
    });
}

/// Problem 3: several wait, on several CPUs, for a callout that others try to send elsewhere. Each is woken.
#[test]
fn t_29_waiters_belong_to_the_callout() {
    Crew::run(4, |crew, task| {
        let solo = Solo::running(crew, task, 1, nothing, done);
        let waiting = [2, 3].map(|cpu| {
            let callout = Arc::clone(&solo.callout);
            crew.ask(task, cpu, move |task| callout.drain(task))
        });
        crew.until(task, || timers::stats(1).drains == 2);
        for cpu in [0, 2, 3] {
            assert_eq!(solo.callout.start_on(cpu, at(LATER)), Err(StartError::Draining));
        }
        solo.gates[0].open();
        for drain in &waiting {
            assert_eq!(crew.join(task, drain), Ok(Stopped::InFlight));
        }
        solo.watch.assert_clean();
    });
}

/// Runs that end at just about the moment at which somebody begins to wait for them.
#[test]
fn t_30_no_wake_up_is_lost() {
    Crew::run(3, |crew, task| {
        timers::start_service(task);
        let callout = Arc::new(Callout::<BottomHalf>::new(1, |_: &BottomHalf, _: &Expiry| ()));
        for _ in 0..300 {
            let _ = callout.start(std::time::Duration::from_nanos(SOON)).unwrap();
            let theirs = Arc::clone(&callout);
            let drained = crew.ask(task, 2, move |task| theirs.drain(task));
            crew.advance(2 * SOON);
            assert!(crew.join(task, &drained).is_ok());
        }
    });
}

/// The run that a drain waits for ends, and before the drainer gets to look, the next begins: that one it does not wait for.
#[test]
fn t_31_a_drain_waits_for_one_run() {
    Crew::run(3, |crew, task| {
        let solo = Solo::running(crew, task, 1, nothing, done);
        let callout = Arc::clone(&solo.callout);
        let drained = crew.ask(task, 2, move |task| callout.drain(task));
        crew.until(task, || timers::stats(1).drains == 1);
        // CPU 2 has something else to do, in the middle of its waiting.
        let busy = Gate::default();
        let theirs = busy.clone();
        let work = BottomHalfWork::new(2, move |_| {
            theirs.pass();
            Turn::Done
        });
        work.schedule();
        crew.until(task, || busy.reached());
        solo.gates[0].open();
        crew.until(task, || !solo.callout.is_running());
        let _ = solo.watch.armed(0, SOON);
        assert_eq!(solo.callout.start_at(at(SOON)), Ok(Started::Armed));
        crew.until(task, || solo.gates[1].reached());
        busy.open();
        assert_eq!(crew.join(task, &drained), Ok(Stopped::InFlight), "returned while the second run is at its gate");
        assert!(solo.callout.is_running());
        solo.gates[1].open();
        crew.until(task, || solo.runs().len() == 2);
        solo.watch.assert_clean();
    });
}

/// Refused while it is drained, and said so, whoever asks; allowed afterwards; refused for ever once it is closed.
#[test]
fn t_32_a_refusal_is_a_state_and_an_answer() {
    for (close, refusal) in [(false, StartError::Draining), (true, StartError::Closed)] {
        Crew::run(2, |crew, task| {
            let after = move |expiry: &Expiry| {
                assert_eq!(expiry.callout().start_at(at(LATER)), Err(refusal));
                // Nor by what it returns.
                Next::At(at(LATER))
            };
            let solo = Solo::running(crew, task, 1, nothing, after);
            let end = End::new(&solo.watch, 0);
            let mut scope = Scope::new();
            scope.add(&solo.callout);
            let mut drained = None;
            match close {
                true => scope.close_all_async(end.completion()),
                false => drained = Some(solo.callout.drain_async(end.completion())),
            }
            assert!(!matches!(drained, Some(Drained::Now(_))));
            assert_eq!(solo.callout.start_at(at(LATER)), Err(refusal));
            solo.gates[0].open();
            crew.until(task, || end.times() == 1);
            assert_eq!(solo.callout.when(), None);
            let again = solo.callout.start_at(at(LATER));
            assert_eq!(again, if close { Err(refusal) } else { Ok(Started::Armed) });
            solo.watch.assert_clean();
        });
    }
}
