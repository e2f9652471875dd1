//! Locks: order, recursion, waiting under a lock, hold times; fairness of the ticket.

use super::*;
use crate::context::Task;
use crate::hosted::Cpus;

fn on_one_cpu(f: impl FnOnce(&Task)) {
    Cpus::new(1).run(0, f);
}

#[test]
fn ranks_that_go_up_are_fine() {
    on_one_cpu(|task| {
        let (outer, inner) = (SpinLock::new(Rank::CACHE, 1), IrqSpinLock::new(Rank::HEAP, 2));
        let sum = *outer.lock(task) + *inner.lock();
        assert_eq!(sum, 3);
        let guard = inner.lock();
        drop(guard);
        assert!(!any_held());
    });
}

#[test]
#[should_panic(expected = "lock order inversion: rank 8 taken at")]
fn an_inversion_panics_and_names_both_sites() {
    on_one_cpu(|task| {
        let (outer, inner) = (SpinLock::new(Rank::CACHE, ()), IrqSpinLock::new(Rank::HEAP, ()));
        let _inner = inner.lock();
        let _outer = outer.lock(task);
    });
}

#[test]
#[should_panic(expected = "lock order recursion: rank 32 taken at")]
fn recursion_panics_instead_of_hanging() {
    on_one_cpu(|_| {
        let lock = IrqSpinLock::new(Rank::QUEUE, ());
        let _first = lock.lock();
        let _second = lock.lock();
    });
}

#[test]
#[should_panic(expected = "a task waits while a lock of rank 24, taken at")]
fn waiting_under_a_lock_panics() {
    on_one_cpu(|task| {
        let lock = SpinLock::new(Rank::DEVICE, ());
        let _held = lock.lock(task);
        task.wait_until(|| true);
    });
}

#[test]
fn a_lock_that_is_taken_is_not_tried() {
    on_one_cpu(|_| {
        let lock = IrqSpinLock::new(Rank::QUEUE, 5);
        assert_eq!(lock.try_lock().map(|guard| *guard), Some(5));
        let held = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(held);
        assert!(lock.try_lock().is_some());
    });
}

#[test]
fn hold_times_are_kept_by_rank() {
    on_one_cpu(|_| {
        let lock = IrqSpinLock::new(Rank::QUEUE, ());
        let held = lock.lock();
        std::thread::sleep(core::time::Duration::from_millis(2));
        drop(held);
        let mut seen = Vec::new();
        longest_holds(0, |rank, nanos| seen.push((rank, nanos)));
        assert!(matches!(seen[..], [(32, nanos)] if nanos >= 2_000_000), "{seen:?}");
    });
}

/// The lock keeps other CPUs out: a counter without atomics comes out right.
fn cpus_count_together(with: impl Fn(&dyn Fn()) + Sync) -> u64 {
    let cpus = Cpus::new(3);
    let lock = std::sync::Arc::new(IrqSpinLock::new(Rank::QUEUE, 0u64));
    std::thread::scope(|scope| {
        for index in 0..3 {
            let (cpus, lock, with) = (&cpus, &lock, &with);
            scope.spawn(move || with(&|| cpus.run(index, |_| (0..2000).for_each(|_| *lock.lock() += 1))));
        }
    });
    cpus.run(0, |_| *lock.lock())
}

#[test]
fn stress_p_39_cpus_exclude_each_other() {
    assert_eq!(cpus_count_together(|f| f()), 6000);
}

/// Pattern 39: CPU 1 spins with interrupts off for a lock that CPU 0 holds, and CPU 0 asks it to run something meanwhile. Nobody waits for
/// a CPU that cannot answer: CPU 0 gets on, and the work runs when CPU 1 has interrupts on again.
fn a_kick_to_a_cpu_that_spins(with: impl FnOnce(&dyn Fn())) {
    use crate::work::{BottomHalfWork, Turn};
    use core::sync::atomic::{AtomicBool, Ordering};
    use std::sync::Arc;
    let (cpus, held) = (Cpus::new(2), std::sync::Barrier::new(2));
    let (lock, spins, ran) =
        (IrqSpinLock::new(Rank::QUEUE, ()), AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
    std::thread::scope(|scope| {
        let (cpus, lock, spins, seen) = (&cpus, &lock, &spins, &*ran);
        let held = &held;
        scope.spawn(move || {
            cpus.run(1, |_| {
                held.wait();
                spins.store(true, Ordering::SeqCst);
                drop(lock.lock());
                (0..1_000_000).take_while(|_| !seen.load(Ordering::SeqCst)).for_each(|_| crate::cpu::relax());
            });
        });
        cpus.run(0, |_| {
            let theirs = Arc::clone(&ran);
            let work = BottomHalfWork::new(1, move |_| {
                theirs.store(true, Ordering::SeqCst);
                Turn::Done
            });
            let taken = lock.lock();
            held.wait();
            while !spins.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
            // It is about to spin, or does already.
            std::thread::sleep(core::time::Duration::from_millis(5));
            with(&|| work.schedule());
            assert!(!seen.load(Ordering::SeqCst), "a bottom half ran with interrupts off");
            drop(taken);
            while !seen.load(Ordering::SeqCst) {
                crate::cpu::relax();
            }
        });
    });
}

#[test]
fn p_39_a_kick_waits_for_nobody() {
    a_kick_to_a_cpu_that_spins(|schedule| schedule());
}

#[test]
#[should_panic(expected = "a kick waits for a CPU that has interrupts off")]
fn p_39_control_a_kick_that_waits() {
    use crate::broken::{self, Hazard};
    a_kick_to_a_cpu_that_spins(|schedule| broken::with(Hazard::KickWaits, schedule));
}

/// The sanitizer sees what the count does not show: a lock that excludes, and whose release publishes nothing. It ends the program, so the
/// program is another one.
#[cfg(sanitizer)]
#[test]
fn stress_p_39_control_a_relaxed_unlock() {
    use crate::broken::{self, Hazard};
    const MARK: &str = "UNDERCROFT_RELAXED_UNLOCK";
    if std::env::var_os(MARK).is_some() {
        cpus_count_together(|f| broken::with(Hazard::RelaxedUnlock, f));
        return;
    }
    let this = std::env::current_exe().unwrap();
    let output = std::process::Command::new(this)
        .args(["--exact", "sync::tests::stress_p_39_control_a_relaxed_unlock", "--nocapture"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("WARNING: ThreadSanitizer: data race"), "not caught: {text}");
}
