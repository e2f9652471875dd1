//! Nothing is allocated or freed in a hard interrupt, nor under a lock, whatever callouts do there: the trapping allocator is this program's own.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use undercroft_hal::hosted::{Cpus, TrapAlloc, trap};
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::{BottomHalf, Duration, HardIrq, Instant, Task};
use undercroft_timer::{Callout, Completion, Drained, Expiry, Guarded, NextOfN, Scope, Started, Stopped, timers};

#[global_allocator]
static ALLOC: TrapAlloc = TrapAlloc::new();

const MS: Duration = Duration::from_millis(1);

fn on_one_cpu(f: impl FnOnce(&Task)) {
    Cpus::with_manual_clock(1, 1 << 30).run(0, |task| {
        timers::start_service(task);
        trap::strict(|| f(task));
        // What was let go is freed.
        task.run_pending();
    });
}

/// A handler in a hard interrupt starts, moves, stops, drains, closes and lets go of others, and of the last there is of one.
#[test]
fn a_handler_in_a_hard_interrupt_uses_callouts() {
    on_one_cpu(|task| {
        let freed = Arc::new(AtomicU64::new(0));
        struct Watch(Arc<AtomicU64>);
        impl Drop for Watch {
            fn drop(&mut self) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let victim = || {
            let watch = Watch(Arc::clone(&freed));
            Callout::<BottomHalf>::new(0, move |_, _| _ = &watch)
        };
        let (kept, dropped, closed) = (victim(), Mutex::new(Some(victim())), Mutex::new(Some(victim())));
        let done = Arc::clone(&freed);
        let completion = Mutex::new(Some(Completion::new(move |_| _ = done.fetch_add(100, SeqCst))));
        let back = Arc::new(Mutex::new(None));
        let scope = Mutex::new(Some(Scope::new()));
        let in_scope = scope.lock().unwrap().as_mut().map(|scope| scope.callout::<HardIrq, _>(0, |_, _| ()));
        let own = Completion::new(|_| ());
        let own = Mutex::new(Some(own));
        let (given_back, ran) = (Arc::clone(&back), Arc::new(AtomicU64::new(0)));
        let runs = Arc::clone(&ran);
        let timers_of_three = NextOfN::<3>::new(0, |_, _, _| ());
        let callout = Callout::<HardIrq>::new(0, move |_: &HardIrq, expiry: &Expiry| {
            runs.fetch_add(1, SeqCst);
            assert_eq!(kept.start(MS), Ok(Started::Armed));
            assert_eq!(kept.start_here(Instant::now() + MS * 2), Ok(Started::Replaced));
            assert_eq!(kept.stop(), Stopped::Cancelled);
            timers_of_three.set(1, Instant::now() + MS).unwrap();
            assert!(timers_of_three.clear(1).is_some());
            drop(dropped.lock().unwrap().take());
            if let (Some(closed), Some(completion)) = (closed.lock().unwrap().take(), completion.lock().unwrap().take())
            {
                // At rest: given back, and not to be freed here.
                *given_back.lock().unwrap() = Some(closed.close_async(completion));
            }
            drop(scope.lock().unwrap().take());
            if let Some(own) = own.lock().unwrap().take() {
                assert!(matches!(expiry.callout().drain_async(own), Drained::Later));
            }
        });
        let _ = callout.start(MS);
        task.wait_until(|| ran.load(SeqCst) == 1);
        task.run_pending();
        assert_eq!(freed.load(SeqCst), 2, "the one that was dropped and the one that was closed");
        assert!(matches!(back.lock().unwrap().take(), Some(Drained::Now(_))));
        assert!(in_scope.is_some_and(|callout| callout.start(MS).is_err()));
        callout.close(task).unwrap();
        task.run_pending();
        assert_eq!(freed.load(SeqCst), 3);
    });
}

/// A handle goes while a lock of its owner's is held.
#[test]
fn a_handle_goes_under_a_lock() {
    on_one_cpu(|task| {
        let lock = Arc::new(IrqSpinLock::new(Rank::DEVICE, 0));
        let guarded: Guarded<IrqSpinLock<i32>> =
            Guarded::new(0, Arc::clone(&lock), |_: &BottomHalf, data: &mut i32, _: &Expiry| *data += 1).unwrap();
        let callout: Callout = Callout::new(0, |_, _| ());
        let _ = (callout.start(MS), guarded.start(MS));
        {
            let mut guard = lock.lock();
            drop(callout);
            assert_eq!(guarded.stop(&mut guard), Ok(Stopped::Cancelled));
            let _ = guarded.start(MS);
        }
        task.wait_until(|| !guarded.is_armed() && !guarded.is_running());
        assert_eq!(*lock.lock(), 1);
        guarded.close(task).unwrap();
    });
}

/// The whole life of a callout leaves nothing behind.
#[test]
fn nothing_leaks() {
    on_one_cpu(|task| {
        // What the first use makes stays.
        let _ = task.block_on(Callout::<Task>::new(0, |_, _| ()).closed());
        task.run_pending();
        trap::assert_no_leak(|| {
            let callout = Callout::<Task>::new(0, |_, _| ());
            let _ = callout.start(MS);
            task.wait_until(|| !callout.is_armed() && !callout.is_running());
            assert!(matches!(callout.drain_async(Completion::new(|_| ())), Drained::Now(_)));
            let _ = task.block_on(callout.closed());
            drop(Callout::<HardIrq>::new(0, |_, _| ()));
            let mut scope = Scope::new();
            let in_scope = scope.callout::<BottomHalf, _>(0, |_, _| ());
            scope.close_all_async(Completion::new(|_| ()));
            drop(in_scope);
            (0..8).for_each(|_| task.run_pending());
        });
    });
}
