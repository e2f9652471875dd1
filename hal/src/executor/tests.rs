//! The executor: results, order, wakers from every context and beyond a task's end.

use super::*;
use crate::hosted::Cpus;
use crate::irq::{self, Handled, Slot as IrqSlot};
use core::task::Waker;
use std::sync::Mutex;
use std::vec::Vec;

/// A future that is ready when somebody says so, and tells its waker to a list.
struct Gate(Arc<AtomicBool>, Arc<Mutex<Vec<Waker>>>);

impl Future for Gate {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut PollContext<'_>) -> Poll<()> {
        self.1.lock().unwrap().push(cx.waker().clone());
        if self.0.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

fn gate() -> (Arc<AtomicBool>, Arc<Mutex<Vec<Waker>>>, Gate) {
    let (open, wakers) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let gate = Gate(Arc::clone(&open), Arc::clone(&wakers));
    (open, wakers, gate)
}

#[test]
fn spawned_tasks_run_while_another_waits() {
    Cpus::new(1).run(0, |task| {
        let handles: Vec<_> = (0..40).map(|n| spawn(task, async move { n * n }).unwrap()).collect();
        let squares = task.block_on(async {
            let mut squares = Vec::new();
            for handle in handles {
                squares.push(handle.await);
            }
            squares
        });
        assert_eq!(squares, (0..40).map(|n| n * n).collect::<Vec<_>>());
    });
}

#[test]
fn a_waker_works_in_a_hard_interrupt() {
    let machine = Cpus::new(1);
    machine.run(0, |task| {
        let (open, wakers, gate) = gate();
        let handle = spawn(task, async {
            gate.await;
            7
        })
        .unwrap();
        let theirs = Arc::clone(&wakers);
        let interrupt = irq::message(task, 0, move |_| {
            open.store(true, Ordering::SeqCst);
            theirs.lock().unwrap().drain(..).for_each(Waker::wake);
            Handled::Yes
        })
        .unwrap()
        .0;
        task.run_pending();
        assert_eq!(wakers.lock().unwrap().len(), 1, "polled once");
        machine.raise(0, IrqSlot(0));
        assert_eq!(task.block_on(handle), 7);
        drop(interrupt);
    });
}

#[test]
fn a_waker_that_outlives_its_task_does_nothing() {
    Cpus::new(1).run(0, |task| {
        let (open, wakers, first) = gate();
        let handle = spawn(task, first).unwrap();
        task.run_pending();
        open.store(true, Ordering::SeqCst);
        let stale = wakers.lock().unwrap().pop().unwrap();
        stale.wake_by_ref();
        task.block_on(handle);
        // The slot is used again: the stale waker must not wake its new tenant.
        let (_, polls, second) = gate();
        let _tenant = spawn(task, second).unwrap();
        task.run_pending();
        assert_eq!(polls.lock().unwrap().len(), 1);
        stale.wake_by_ref();
        task.run_pending();
        assert_eq!(polls.lock().unwrap().len(), 1, "woken by another task's waker");
    });
}

#[test]
fn slots_run_out_with_an_error_and_come_back() {
    Cpus::new(1).run(0, |task| {
        let (open, wakers, _) = gate();
        let sleep = || Gate(Arc::clone(&open), Arc::clone(&wakers));
        let mut handles = Vec::new();
        while let Ok(handle) = spawn(task, sleep()) {
            handles.push(handle);
        }
        assert_eq!(handles.len(), 1024);
        assert!(task.try_block_on(async {}).is_err());
        open.store(true, Ordering::SeqCst);
        while !handles.is_empty() {
            let asleep = core::mem::take(&mut *wakers.lock().unwrap());
            asleep.into_iter().for_each(Waker::wake);
            task.run_pending();
            handles.retain(|handle| handle.try_take().is_none());
        }
        task.block_on(async {});
    });
}

#[test]
fn stress_a_task_wakes_a_waiter_on_another_cpu() {
    let machine = Cpus::new(2);
    let (open, wakers, gate) = gate();
    std::thread::scope(|scope| {
        scope.spawn(|| machine.run(1, |task| task.block_on(gate)));
        scope.spawn(|| {
            machine.run(0, |_| {
                while wakers.lock().unwrap().is_empty() {
                    cpu::relax();
                }
                open.store(true, Ordering::SeqCst);
                wakers.lock().unwrap().drain(..).for_each(Waker::wake);
            });
        });
    });
}

/// Runs the tasks of CPU 1 while `f` is CPU 0's task.
fn beside_another<R>(f: impl FnOnce(&Task) -> R) -> R {
    let machine = Cpus::new(2);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| machine.run(1, |task| task.wait_until(|| over.load(Ordering::SeqCst))));
        machine.run(0, |task| {
            let result = f(task);
            over.store(true, Ordering::SeqCst);
            crate::platform::seam::kick(1);
            result
        })
    })
}

#[test]
fn functions_and_tasks_run_on_the_cpu_asked_for() {
    beside_another(|task| {
        for round in 0..100 {
            let nested = run_on(task, 1, move |task| {
                let inner = spawn(task, async move { (cpu::current(), round) }).unwrap();
                (cpu::current(), task.block_on(inner))
            });
            assert_eq!(task.block_on(nested), (1, (1, round)));
            let hop = spawn_on(task, 1, async move { (cpu::current(), round) }).unwrap();
            assert_eq!(task.block_on(hop), (1, round));
            assert_eq!(task.block_on(spawn_on(task, 2, async { cpu::current() }).unwrap()), 0, "modulo");
        }
    });
}
