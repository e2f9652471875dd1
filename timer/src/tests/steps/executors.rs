//! Executors: handlers that free, stop, re-arm and unwind.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use undercroft_hal::clock::{Duration, Instant};
use undercroft_hal::hosted::Cpus;
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::{BottomHalf, HardIrq, Task};

use crate::next::Next;
use crate::tests::scene::{BH, scene};
use crate::*;

proves! {
    fn t_08_a_drain_in_its_handler = drain_in_handler;
    fn t_13_a_held_lock_stalls_nobody_else = held_lock;
    fn t_28_t_37_a_handler_frees_its_callout = freed_by_handler;
    fn t_30_a_waiter_is_registered_in_time = registered_in_time;
    fn t_38_a_handler_frees_the_next = sibling;
    fn t_39_a_handler_starts_itself_for_now = endless;
    fn w_14_a_handler_unwinds = unwinds;
    fn i_06_a_callout_lives_as_long_as_its_flight = freed_by_handler;
    fn i_07_self_waits_are_refused = drain_in_handler;
    fn i_08_never_early = never_early;
    fn i_11_handlers_do_not_disturb_others = unwinds;
}

controls! {
    fn t_08_control_drain_blind = drain_in_handler, DrainBlind, "nothing can ever happen again";
    fn t_13_control_waits_for_lock = held_lock, WaitsForLock, "an executor waits for a lock";
    fn t_28_t_37_control_freed_by_handler = freed_by_handler, FreedByHandler, "the last reference of a node that is linked or in flight";
    fn t_38_control_saved_next = sibling, SavedNext, "ran after it was closed";
    fn t_39_control_endless_turn = endless, EndlessTurn, "one turn without end";
    fn w_14_control_no_guard = unwinds, NoGuard, "in flight for ever";
    fn i_06_control_freed_by_handler = freed_by_handler, FreedByHandler, "the last reference of a node that is linked or in flight";
    fn i_07_control_drain_blind = drain_in_handler, DrainBlind, "nothing can ever happen again";
    fn i_11_control_no_guard = unwinds, NoGuard, "in flight for ever";
}

/// T-08, I-7: a handler that got hold of a task's token, against all rules, drains its own callout; and one that drains it the allowed way.
fn drain_in_handler() {
    Cpus::with_manual_clock(1, 0).run(0, |task| {
        timers::start_service(task);
        let (seen, done) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        let (saw, marks) = (Arc::clone(&seen), Arc::clone(&done));
        let slot: Arc<Mutex<Option<Arc<Callout>>>> = Arc::default();
        let own = Arc::clone(&slot);
        let stolen = core::ptr::from_ref(task).addr();
        let callout = Arc::new(Callout::<BottomHalf>::new(0, move |_, expiry| {
            let me = own.lock().unwrap().take().unwrap();
            // SAFETY: a token is zero-sized, and this one is lent by our caller's caller. That is against the rules of contexts, not of memory.
            let task = unsafe { &*core::ptr::with_exposed_provenance::<Task>(stolen) };
            *saw.lock().unwrap() = Some(me.drain(task));
            let marks = Arc::clone(&marks);
            let completion = Completion::new(move |_| marks.store(true, SeqCst));
            assert!(matches!(expiry.callout().drain_async(completion), Drained::Later));
        }));
        *slot.lock().unwrap() = Some(Arc::clone(&callout));
        let _ = callout.start(Duration::from_micros(5));
        task.wait_until(|| !callout.is_armed() && !callout.is_running());
        task.run_pending();
        assert_eq!(*seen.lock().unwrap(), Some(Err(DrainError::InHandler)));
        assert!(done.load(SeqCst), "the other way it completes");
        let lock = IrqSpinLock::new(Rank::DEVICE, ());
        let held = lock.lock();
        assert_eq!(callout.drain(task), Err(DrainError::LockHeld));
        drop(held);
        assert!(callout.drain(task).is_ok());
        let (answer, guard) = callout.drain_with(task, lock.lock());
        assert_eq!(answer, Ok(Stopped::NotArmed));
        drop(guard);
    });
}

/// T-13: CPU 1 holds the lock of one callout of CPU 0 for a long time; another runs meanwhile.
fn held_lock() {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let cpus = Cpus::new(2);
    let lock = Arc::new(IrqSpinLock::new(Rank::DEVICE, 0u32));
    let (held, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            cpus.run(1, |_| {
                let guard = lock.lock();
                held.store(true, SeqCst);
                while !over.load(SeqCst) {
                    std::thread::yield_now();
                }
                drop(guard);
            });
        });
        let over = Over(&over);
        cpus.run(0, |task| {
            while !held.load(SeqCst) {
                std::thread::yield_now();
            }
            timers::start_service(task);
            let bound: Guarded<IrqSpinLock<u32>> =
                Guarded::new(0, Arc::clone(&lock), |_: &BottomHalf, runs: &mut u32, _: &Expiry| *runs += 1).unwrap();
            let seen = Arc::new(AtomicU64::new(0));
            let theirs = Arc::clone(&seen);
            let other: Callout = Callout::new(0, move |_, _| _ = theirs.fetch_add(1, SeqCst));
            let _ = (bound.start(Duration::ZERO), other.start(Duration::from_micros(100)));
            task.wait_until(|| seen.load(SeqCst) == 1);
            task.wait_until(|| timers::stats(0).contended > 3);
            assert!(bound.is_armed(), "it waits, and can be stopped");
            drop(over);
            task.wait_until(|| !bound.is_armed() && !bound.is_running());
            assert_eq!(*lock.lock(), 1);
        });
    });
}

/// T-28, T-37, I-6: a handler drops its own callout's handle.
fn freed_by_handler() {
    struct Watch(Arc<AtomicU64>);
    impl Drop for Watch {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    Cpus::with_manual_clock(1, 0).run(0, |task| {
        timers::start_service(task);
        let freed = Arc::new(AtomicU64::new(0));
        let watch = Watch(Arc::clone(&freed));
        let slot: Arc<Mutex<Option<Callout>>> = Arc::default();
        let (own, seen) = (Arc::clone(&slot), Arc::clone(&freed));
        let callout: Callout = Callout::new(0, move |_: &BottomHalf, expiry: &Expiry| {
            let _ = &watch;
            let me = own.lock().unwrap().take();
            if let Some(me) = &me {
                let _ = me.start(Duration::ZERO);
            }
            drop(me);
            assert_eq!(seen.load(SeqCst), 0, "freed under its own feet");
            assert_eq!(expiry.callout().start(Duration::ZERO), Err(StartError::Closed));
            Next::Every(Duration::from_nanos(1))
        });
        let _ = callout.start(Duration::from_micros(50));
        *slot.lock().unwrap() = Some(callout);
        task.wait_until(|| freed.load(SeqCst) == 1);
        assert_eq!(timers::stats(0).fired, 1);
    });
}

/// T-30: a run ends between a drain's look and its registration. Here they are one.
fn registered_in_time() {
    scene(1, |s| {
        let (node, _) = s.counting();
        let flight = s.commit(&node);
        let count = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&count);
        assert!(!s.drain(&node, false, move || _ = theirs.fetch_add(1, SeqCst)));
        s.finish(flight);
        s.chores(0);
        assert_eq!(count.load(SeqCst), 1);
    });
}

/// T-38: two are due; the first one's handler closes and frees the second.
fn sibling() {
    scene(1, |s| {
        let slot: Arc<Mutex<Option<crate::node::Ref>>> = Arc::default();
        let closed = Arc::new(AtomicBool::new(false));
        let (theirs, marks) = (Arc::clone(&slot), Arc::clone(&closed));
        let wheels = core::ptr::from_ref(&s.wheels).expose_provenance();
        let first = s.node(move |_| {
            // SAFETY: the scene outlives its nodes' runs.
            let wheels: &crate::wheels::Wheels<_> = unsafe { &*core::ptr::with_exposed_provenance(wheels) };
            let wheels: &crate::wheels::Wheels<crate::tests::scene::Mock> = wheels;
            if let Some(node) = theirs.lock().unwrap().take() {
                wheels.let_go(node);
            }
            marks.store(true, SeqCst);
            Next::Done
        });
        let seen = Arc::clone(&closed);
        let second = s.node(move |_| {
            assert!(!seen.load(SeqCst), "ran after it was closed");
            Next::Done
        });
        let (third, count) = s.counting();
        for (node, at) in [(&first, 1_000), (&second, 3_000), (&third, 5_000)] {
            let _ = s.start(node, at);
        }
        *slot.lock().unwrap() = Some(second);
        s.set_time(9_000);
        while s.wheels.turn(0, BH) {
            s.chores(0);
        }
        assert_eq!(count.load(SeqCst), 1, "the third runs");
    });
}

/// T-39: a handler starts its callout for now, again and again; others run, and each turn ends.
fn endless() {
    scene(1, |s| {
        let runs = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&runs);
        let node = s.node(move |_| {
            assert!(theirs.fetch_add(1, SeqCst) < 1000, "one turn without end");
            Next::At(Instant::from_nanos(0))
        });
        let (other, count) = s.counting();
        let _ = (s.start(&node, 1_000), s.start(&other, 1_000));
        s.set_time(5_000);
        assert!(s.wheels.turn(0, BH), "there is more");
        assert!(runs.load(SeqCst) <= crate::executor::BUDGET as u64);
        assert_eq!(count.load(SeqCst), 1);
        let _ = s.wheels.stop(&node, false);
    });
}

/// W-14, I-11: a handler unwinds, at each level, with others due behind it.
fn unwinds() {
    fn one<L: Level>() {
        Cpus::with_manual_clock(1, 0).run(0, |task| {
            timers::start_service(task);
            let callout = Callout::<L>::new(0, |_, _| {
                if true {
                    panic!("a handler's own");
                }
            });
            let count = Arc::new(AtomicU64::new(0));
            let others: Vec<_> = (0..3)
                .map(|_| {
                    let count = Arc::clone(&count);
                    Callout::<L>::new(0, move |_, _| _ = count.fetch_add(1, SeqCst))
                })
                .collect();
            let at = Instant::now() + Duration::from_micros(50);
            let _ = callout.start_at(at);
            others.iter().for_each(|other| _ = other.start_at(at));
            let unwound = catch_unwind(AssertUnwindSafe(|| task.wait_until(|| count.load(SeqCst) == 3)));
            assert!(unwound.is_err());
            assert!(!callout.is_running(), "in flight for ever");
            task.wait_until(|| count.load(SeqCst) == 3);
            assert_eq!(callout.drain(task), Ok(Stopped::NotArmed));
            assert_eq!(timers::stats(0).panicked, 1);
        });
    }
    one::<HardIrq>();
    one::<BottomHalf>();
    one::<Task>();
}

/// I-8: at every phase of the clock within a tick.
fn never_early() {
    scene(1, |s| {
        for phase in (0..3000).step_by(151) {
            s.set_time(((phase + 1) << 20) + phase);
            let (node, count) = s.counting();
            let at = s.now() + 1500;
            let _ = s.start(&node, at);
            while count.load(SeqCst) == 0 {
                assert!(s.now() < at + 1024, "a tick late at most");
                s.set_time(s.now() + 13);
                s.wheels.turn(0, BH);
            }
            assert!(s.now() >= at, "early");
        }
    });
}
