//! Callouts bound to a lock on ours: nothing that the lock's holder decided is undone, and nobody else waits for the lock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use undercroft_hal::sync::IrqSpinLock;
use undercroft_hal::{BottomHalf, HardIrq, Task, cpu};
use undercroft_timer::{Callout, Completion, Expiry, Guarded, Started, Stopped, timers};

use crate::crew::{Crew, Gate};
use crate::lab::Lab;
use crate::ours::{CLIENT, END, End, LATER, Object, SOON, at};
use crate::watch::Watch;

/// Where and when a handler ran.
type Runs = Vec<(usize, u64)>;
type Lock = IrqSpinLock<Runs>;

/// A lock-bound callout on CPU `home` that keeps book of its runs.
fn bound(home: usize) -> (Arc<Lock>, Guarded<Lock, BottomHalf>) {
    let lock = Arc::new(Lock::new(CLIENT, Vec::new()));
    let handler =
        |_: &BottomHalf, runs: &mut Runs, expiry: &Expiry| runs.push((cpu::current(), expiry.now().as_nanos()));
    let callout = Guarded::new(home, Arc::clone(&lock), handler).unwrap();
    (lock, callout)
}

/// Two handlers share a lock, run at the same time on two CPUs as far as it lets them, and are closed meanwhile: the lock goes once, after both.
#[test]
fn t_03_the_last_unlock() {
    struct Data(Arc<AtomicUsize>);
    impl Drop for Data {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    Crew::run(3, |crew, task| {
        timers::start_service(task);
        for round in 1..=200 {
            let (freed, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let lock = Arc::new(IrqSpinLock::new(CLIENT, Data(Arc::clone(&freed))));
            let callouts = [1, 2].map(|home| {
                let handler =
                    |_: &BottomHalf, data: &mut Data, _: &Expiry| assert_eq!(data.0.load(Ordering::SeqCst), 0);
                Guarded::<_, BottomHalf>::new(home, Arc::clone(&lock), handler).unwrap()
            });
            for callout in &callouts {
                let _ = callout.start_at(at(round * SOON)).unwrap();
            }
            drop(lock);
            crew.advance(SOON);
            for callout in callouts {
                let theirs = Arc::clone(&ended);
                let drained = callout.close_async(Completion::new(move |_: &BottomHalf| {
                    theirs.fetch_add(1, Ordering::SeqCst);
                }));
                ended.fetch_add(usize::from(matches!(drained, undercroft_timer::Drained::Now(_))), Ordering::SeqCst);
            }
            crew.until(task, || ended.load(Ordering::SeqCst) == 2 && freed.load(Ordering::SeqCst) > 0);
            assert_eq!(freed.load(Ordering::SeqCst), 1);
        }
    });
}

/// Stopped and drained by the lock's holder at every point: the completion finds the lock free, and the executor done with it.
#[test]
fn t_07_a_completion_comes_after_the_executors_last_touch() {
    let completed = |after| {
        Lab::run(2, |lab, task| {
            timers::start_service(task);
            let (lock, callout) = bound(0);
            let _ = callout.start_at(at(SOON)).unwrap();
            let callout = Arc::new(callout);
            let ended = Arc::new(Mutex::new(Vec::new()));
            let (note, theirs, their_lock) = (Arc::clone(&ended), Arc::clone(&callout), Arc::clone(&lock));
            let completion = Completion::new(move |_: &BottomHalf| {
                note.lock().unwrap().push((their_lock.try_lock().is_some(), theirs.is_running()));
            });
            let (once, theirs, their_lock) = (Mutex::new(Some(completion)), Arc::clone(&callout), Arc::clone(&lock));
            let stopped = Arc::new(Mutex::new(None));
            let answer = Arc::clone(&stopped);
            let intruder = Lab::intruder(task, move || {
                let mut guard = their_lock.lock();
                let Some(completion) = once.lock().unwrap().take() else { return };
                *answer.lock().unwrap() = Some((theirs.stop(&mut guard).unwrap(), guard.len()));
                let _ = theirs.drain_async(completion);
            });
            lab.strike(&intruder, after, Some(1));
            lab.pass_to(SOON);
            let struck = !lab.call_off();
            lab.pass_to(END);
            if let Some((stopped, before)) = *stopped.lock().unwrap() {
                assert!(!stopped.is_in_flight(), "the lock is held: {stopped:?}");
                assert_eq!(lock.lock().len(), before, "ran after an exact stop");
            }
            let seen = ended.lock().unwrap().clone();
            struck.then_some(seen)
        })
    };
    let all: Vec<_> = (0..).map_while(completed).collect();
    assert!(all.iter().any(|ends| !ends.is_empty()), "never in flight");
    assert!(all.iter().flatten().all(|end| *end == (true, false)), "{all:?}");
}

/// The handler asks for its own end, and gets it after it has returned.
#[test]
fn t_08_drain_inside_the_handler() {
    Lab::run(1, |lab, task| {
        timers::start_service(task);
        let watch = Arc::new(Watch::new());
        let (object, end) = (Object::new(&watch, 0), End::new(&watch, 0));
        let theirs = end.clone();
        let callout = Callout::<BottomHalf>::new(0, move |_: &BottomHalf, expiry: &Expiry| {
            object.run(expiry, || {
                assert!(!theirs.heard(expiry.callout().drain_async(theirs.completion())), "it runs");
                assert_eq!(theirs.times(), 0);
            });
        });
        let _ = watch.armed(0, SOON);
        let _ = callout.start_at(at(SOON)).unwrap();
        lab.pass_to(END);
        assert_eq!(end.times(), 1);
        watch.assert_clean();
    });
}

/// CPU 1's executor finds the lock held, and its holder sends the callout to CPU 0 for later, and then, perhaps, for later still.
fn moved_under_the_lock(deadlines: &[u64]) -> Runs {
    Lab::run(2, |lab, task| {
        timers::start_service(task);
        let (lock, callout) = bound(1);
        let _ = callout.start_at(at(SOON)).unwrap();
        let held = lock.lock();
        lab.pass_to(SOON);
        assert!(callout.is_armed(), "it waits for the lock");
        for &deadline in deadlines {
            let _ = callout.start_on(0, at(deadline)).unwrap();
            assert_eq!((callout.is_armed(), callout.when()), (true, Some(at(deadline))));
        }
        drop(held);
        for nanos in [SOON + 1_000_000, LATER / 2, END, 2 * END] {
            lab.pass_to(nanos);
        }
        assert_eq!(callout.stop(&mut lock.lock()), Ok(Stopped::NotArmed));
        lock.lock().clone()
    })
}

#[test]
fn t_09_a_request_under_the_lock_is_what_counts() {
    assert!(matches!(moved_under_the_lock(&[])[..], [(1, SOON..LATER)]), "left alone");
    assert!(matches!(moved_under_the_lock(&[LATER])[..], [(0, LATER..)]), "once, then and there");
}

#[test]
fn t_10_reset_while_a_reset_is_parked() {
    assert!(matches!(moved_under_the_lock(&[LATER, LATER + END])[..], [(0, at)] if at >= LATER + END));
    // The same while the handler of a callout without a lock runs.
    Crew::run(2, |crew, task| {
        timers::start_service(task);
        let watch = Arc::new(Watch::new());
        let (object, gate, told) = (Object::new(&watch, 0), Gate::default(), Arc::new(Mutex::new(Vec::new())));
        let (their_gate, theirs) = (gate.clone(), Arc::clone(&told));
        let callout = Callout::<BottomHalf>::new(1, move |_: &BottomHalf, expiry: &Expiry| {
            object.run(expiry, || {
                their_gate.pass();
                theirs.lock().unwrap().push((cpu::current(), expiry.superseded()));
            });
        });
        let _ = watch.armed(0, SOON);
        let _ = callout.start_at(at(SOON)).unwrap();
        crew.advance(SOON);
        crew.until(task, || gate.reached());
        for (cpu, deadline) in [(0, LATER), (1, LATER + 1), (0, LATER + 2)] {
            let _ = watch.armed(0, deadline);
            assert_eq!(callout.start_on(cpu, at(deadline)), Ok(Started::ParkedInFlight));
            assert_eq!((callout.is_armed(), callout.when()), (true, Some(at(deadline))), "I-12");
        }
        gate.open();
        crew.until(task, || !callout.is_running());
        crew.advance(END);
        crew.until(task, || told.lock().unwrap().len() == 2);
        assert_eq!(*told.lock().unwrap(), [(1, true), (0, false)]);
        watch.assert_clean();
    });
}

/// A callback in the hard interrupt whose lock is held on another CPU, or on its own, where interrupts are off then: it comes when the lock is free.
#[test]
fn t_12_direct_callback_with_a_lock() {
    for home in [0, 1] {
        Lab::run(2, |lab, task| {
            timers::start_service(task);
            let lock = Arc::new(Lock::new(CLIENT, Vec::new()));
            let handler =
                |_: &HardIrq, runs: &mut Runs, expiry: &Expiry| runs.push((cpu::current(), expiry.now().as_nanos()));
            let callout = Guarded::<_, HardIrq>::new(home, Arc::clone(&lock), handler).unwrap();
            let _ = callout.start_at(at(SOON)).unwrap();
            let held = lock.lock();
            lab.pass_to(SOON + 1_000_000);
            drop(held);
            lab.pass_to(END);
            assert!(matches!(lock.lock()[..], [(cpu, _)] if cpu == home));
        });
    }
}

/// A drain of a direct callback from an interrupt on another CPU does not wait, and has its answer when the callback has returned.
#[test]
fn t_12_drain_of_a_direct_callback() {
    Crew::run(2, |crew, task: &Task| {
        timers::start_service(task);
        let watch = Arc::new(Watch::new());
        let (object, gate, end) = (Object::new(&watch, 0), Gate::default(), End::new(&watch, 0));
        let their_gate = gate.clone();
        let handler = move |_: &HardIrq, expiry: &Expiry| object.run(expiry, || their_gate.pass());
        let callout = Callout::<HardIrq>::new(1, handler);
        let _ = watch.armed(0, SOON);
        let _ = callout.start_at(at(SOON)).unwrap();
        crew.advance(SOON);
        crew.until(task, || gate.reached());
        let (theirs, once) = (end.clone(), Mutex::new(Some((callout, end.completion()))));
        let asked = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&asked);
        let intruder = Lab::intruder(task, move || {
            let taken = once.lock().unwrap().take();
            if let Some((callout, completion)) = taken {
                assert!(!theirs.heard(callout.close_async(completion)));
                told.fetch_add(1, Ordering::SeqCst);
            }
        });
        crew.interrupt(0, &intruder);
        crew.until(task, || asked.load(Ordering::SeqCst) == 1);
        assert_eq!(end.times(), 0);
        gate.open();
        crew.until(task, || end.times() == 1);
        watch.assert_clean();
    });
}

/// The lock is held for a hundred milliseconds, and the executor has others to run.
#[test]
fn t_13_one_big_lock() {
    const LONG: u64 = 100_000_000;
    Lab::run(2, |lab, task| {
        timers::start_service(task);
        let (giant, callout) = bound(1);
        let _ = callout.start_at(at(SOON)).unwrap();
        let late = Arc::new(Mutex::new(Vec::new()));
        let others: Vec<_> = (0..10)
            .map(|n| {
                let theirs = Arc::clone(&late);
                let handler =
                    move |_: &BottomHalf, expiry: &Expiry| theirs.lock().unwrap().push(expiry.late().as_nanos());
                let other = Callout::<BottomHalf>::new(1, handler);
                let _ = other.start_at(at(SOON + n * LONG / 20)).unwrap();
                other
            })
            .collect();
        let held = giant.lock();
        for n in 0..=LONG / 10_000 {
            lab.pass_to(SOON + n * 10_000);
        }
        assert_eq!(late.lock().unwrap().len(), others.len());
        assert!(late.lock().unwrap().iter().all(|&late| late <= 20_000), "{late:?}");
        drop(held);
        lab.pass_to(END);
        assert_eq!(giant.lock().len(), 1);
    });
}
