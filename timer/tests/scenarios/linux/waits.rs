//! The same on ours: who may wait, and storage that is not the client's.

use std::sync::{Arc, Mutex};

use undercroft_hal::sync::IrqSpinLock;
use undercroft_hal::{BottomHalf, Instant};
use undercroft_timer::{Callout, DrainError, Expiry, Started, Stopped, timers};

use crate::crew::{Crew, Gate};
use crate::lab::Lab;
use crate::ours::{CLIENT, END, End, LATER, Object, SOON, at};
use crate::watch::Watch;

/// T-42 a: a drain with a lock held that the handler takes. It is refused, or lets the lock go for as long as it waits.
#[test]
fn t_42_drain_with_the_handlers_lock_held() {
    Crew::run(2, |crew, task| {
        timers::start_service(task);
        let lock = Arc::new(IrqSpinLock::new(CLIENT, 0));
        let (theirs, gate) = (Arc::clone(&lock), Gate::default());
        let at_gate = gate.clone();
        let callout = Callout::<BottomHalf>::new(1, move |_: &BottomHalf, _: &Expiry| {
            at_gate.pass();
            *theirs.lock() += 1;
        });
        let _ = callout.start_at(at(SOON)).unwrap();
        crew.advance(SOON);
        crew.until(task, || gate.reached());
        let guard = lock.lock();
        if cfg!(debug_assertions) {
            assert_eq!(callout.drain(task), Err(DrainError::LockHeld));
        }
        gate.open();
        let (answer, guard) = callout.drain_with(task, guard);
        assert_eq!((answer, *guard), (Ok(Stopped::InFlight), 1));
        // With nothing to wait for it keeps the lock: nobody came in between.
        let (answer, guard) = callout.drain_with(task, guard);
        assert_eq!((answer, *guard), (Ok(Stopped::NotArmed), 1));
        drop(guard);
    });
}

/// T-42 c and d: an interrupt over the handler asks for the end, and one that spins on the lock of somebody who closes: nobody waits there.
#[test]
fn t_42_ends_are_asked_for_over_the_handler() {
    let ended = |after| {
        Lab::run(1, |lab, task| {
            timers::start_service(task);
            let watch = Arc::new(Watch::new());
            let (object, end) = (Object::new(&watch, 0), End::new(&watch, 0));
            let shared = Arc::new(IrqSpinLock::new(CLIENT, ()));
            let callout = Callout::<BottomHalf>::new(0, move |_: &BottomHalf, expiry: &Expiry| {
                object.run(expiry, || {
                    Instant::now();
                });
            });
            let _ = watch.armed(0, SOON);
            let _ = callout.start_at(at(SOON)).unwrap();
            let (once, theirs) = (Mutex::new(Some((callout, end.completion()))), end.clone());
            let intruder = Lab::intruder(task, move || {
                let _held = shared.lock();
                let taken = once.lock().unwrap().take();
                if let Some((callout, last)) = taken {
                    theirs.heard(callout.close_async(last));
                }
            });
            lab.strike(&intruder, after, None);
            lab.pass_to(SOON);
            let struck = !lab.call_off();
            lab.pass_to(END);
            watch.assert_clean();
            struck.then(|| end.times())
        })
    };
    let all: Vec<_> = (0..).map_while(ended).collect();
    assert!(all.len() > 5 && all.iter().all(|&times| times == 1), "{all:?}");
}

/// Everything that can be done in the wrong order has an answer, and the memory is where it should be.
#[test]
fn t_44_storage_in_the_cores_hands() {
    Lab::run(1, |lab, task| {
        timers::start_service(task);
        let watch = Arc::new(Watch::new());
        let make = |id| {
            let object = Object::new(&watch, id);
            Callout::<BottomHalf>::new(0, move |_: &BottomHalf, expiry: &Expiry| object.run(expiry, || ()))
        };
        let callouts = [0, 1, 2].map(make);
        for callout in &callouts {
            assert_eq!(callout.start_at(at(SOON)), Ok(Started::Armed));
            assert_eq!(callout.start_at(at(SOON)), Ok(Started::Replaced), "registered while registered");
        }
        let [first, second, third] = callouts;
        assert_eq!([first.stop(), first.stop()], [Stopped::Cancelled, Stopped::NotArmed], "unregistered twice");
        // Freed while registered.
        drop(second);
        let _ = watch.armed(2, SOON);
        lab.pass_to(LATER);
        assert_eq!([0, 1, 2].map(|id| watch.runs(id)), [0, 0, 1]);
        let _ = watch.armed(2, END);
        assert_eq!(third.start_at(at(END)), Ok(Started::Armed), "after it ran");
        assert!(third.close(task).is_ok());
        let _ = watch.over(2);
        lab.pass_to(2 * END);
        assert_eq!((watch.runs(2), timers::stats(0).armed), (1, 0));
        drop(first);
        watch.assert_clean();
    });
}
