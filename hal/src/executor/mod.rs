//! A small cooperative executor: one per CPU, for `async` tasks in task context.
//!
//! A spawned task is an item of its CPU's run queue: waking it queues it, and it runs when that CPU's task context waits or looks at its
//! queues. A [`Waker`](core::task::Waker) is a number (CPU, slot, generation), not a reference: it may be cloned, used and dropped in any
//! context, hard interrupts included, because that never allocates or frees. A waker that outlives its task finds the slot's generation over
//! and does nothing.

mod join;
mod slots;
mod waker;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::Future;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context as PollContext, Poll};

pub use join::JoinHandle;
pub(crate) use slots::Slots;
use slots::{Key, Sleeper};
use waker::waker;

use crate::context::Task;
use crate::sync::{IrqSpinLock, Rank};
use crate::work::{TaskWork, Turn};
use crate::{cpu, system};

/// A spawned task.
struct Spawned {
    /// Away while it is being polled, and for ever when it is done.
    future: IrqSpinLock<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    work: TaskWork,
}

/// Why a task could not be spawned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyTasks;

impl core::fmt::Display for TooManyTasks {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the CPU's executor has no slot left")
    }
}

/// Starts an `async` task on this CPU. It first runs when task context waits next. Allocates.
///
/// # Errors
/// [`TooManyTasks`] when the CPU's slots are used up.
pub fn spawn<F>(cx: &Task, future: F) -> Result<JoinHandle<F::Output>, TooManyTasks>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    spawn_on(cx, cpu::current(), future)
}

/// As [`spawn`], on CPU `cpu` (taken modulo the number of CPUs): the task is polled and dropped there.
///
/// # Errors
/// [`TooManyTasks`] when that CPU's slots are used up.
pub fn spawn_on<F>(cx: &Task, cpu: usize, future: F) -> Result<JoinHandle<F::Output>, TooManyTasks>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (handle, future) = join::pair(future);
    let here = cpu % cpu::count().max(1);
    let key = system::with(|system| system.cpus[here].sleepers.reserve(cx)).ok_or(TooManyTasks)?;
    let spawned = Arc::new_cyclic(|this: &alloc::sync::Weak<Spawned>| {
        let this = this.clone();
        let work = TaskWork::new(here, move |cx: &Task| {
            if let Some(spawned) = this.upgrade() {
                spawned.poll(cx, here, key);
            }
            Turn::Done
        });
        Spawned { future: IrqSpinLock::new(Rank::QUEUE, Some(Box::pin(future))), work }
    });
    system::with(|system| system.cpus[here].sleepers.fill(key, Sleeper::Task(Arc::clone(&spawned))));
    spawned.work.schedule();
    Ok(handle)
}

/// Runs a function in task context of CPU `cpu` (taken modulo the number of CPUs), when that waits next. The function has its CPU's token
/// and may wait; what waits there meanwhile gets on only when it returns. Allocates.
pub fn run_on<T: Send + 'static>(_cx: &Task, cpu: usize, f: impl FnOnce(&Task) -> T + Send + 'static) -> JoinHandle<T> {
    let (handle, result) = join::promise();
    let once = IrqSpinLock::new(Rank::QUEUE, Some((f, result)));
    let work = TaskWork::new(cpu, move |cx: &Task| {
        let taken = once.lock().take();
        if let Some((f, result)) = taken {
            result.keep(f(cx));
        }
        Turn::Done
    });
    work.schedule();
    work.detach();
    handle
}

impl Spawned {
    fn poll(&self, cx: &Task, cpu: usize, key: Key) {
        // Polled with no lock held: the future is taken out, and nobody else polls, because work runs once at a time.
        let Some(mut future) = self.future.lock().take() else { return };
        let waker = waker(cpu, key);
        match future.as_mut().poll(&mut PollContext::from_waker(&waker)) {
            Poll::Pending => *self.future.lock() = Some(future),
            Poll::Ready(()) => {
                // Frees the slot here, in task context; `self` lives on in the run queue's reference until this handler returns.
                let sleeper = system::with(|system| system.cpus[cpu].sleepers.release(cx, key));
                drop(sleeper);
            }
        }
    }
}

impl Task {
    /// Runs a future to its end on this CPU, waiting as [`Task::wait_until`] does; spawned tasks run meanwhile. Its wakers may be used in
    /// any context.
    ///
    /// # Errors
    /// [`TooManyTasks`] when the CPU's slots are used up.
    pub fn try_block_on<F: Future>(&self, future: F) -> Result<F::Output, TooManyTasks> {
        let here = cpu::current();
        let key = system::with(|system| system.cpus[here].sleepers.reserve(self)).ok_or(TooManyTasks)?;
        let woken = Arc::new(AtomicBool::new(true));
        system::with(|system| system.cpus[here].sleepers.fill(key, Sleeper::Waiter(Arc::clone(&woken))));
        let waker = waker(here, key);
        let mut future = pin!(future);
        let value = loop {
            self.wait_until(|| woken.swap(false, Ordering::AcqRel));
            if let Poll::Ready(value) = future.as_mut().poll(&mut PollContext::from_waker(&waker)) {
                break value;
            }
        };
        drop(system::with(|system| system.cpus[here].sleepers.release(self, key)));
        Ok(value)
    }

    /// As [`Task::try_block_on`].
    ///
    /// # Panics
    /// When the CPU's executor has no slot left: more than a thousand tasks on one CPU.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self.try_block_on(future) {
            Ok(value) => value,
            Err(error) => panic!("{error}"),
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
