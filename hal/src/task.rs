//! Task context: waiting, and running futures. The only context that may wait.

use alloc::sync::Arc;
use alloc::task::Wake;
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context as PollContext, Poll, Waker};

use crate::context::{Kind, Task};
use crate::cpu::IrqGuard;
use crate::platform::seam;
use crate::{cpu, dispatch, sync, work};

impl Task {
    /// Waits until `ready` holds, running this CPU's bottom halves and run-queue work meanwhile and halting the CPU when there
    /// is nothing to run. What makes `ready` true must be followed by an interrupt, a kick or scheduled work on this CPU.
    ///
    /// # Panics
    /// In debug and test builds, if a lock is held.
    pub fn wait_until(&self, mut ready: impl FnMut() -> bool) {
        sync::assert_unlocked("a task waits");
        loop {
            self.run_pending();
            if ready() {
                return;
            }
            let _off = IrqGuard::new();
            // With interrupts off nothing can become ready between this look and the halt, which ends at an interrupt.
            if !work::pending(Kind::BottomHalf) && !work::pending(Kind::Task) && !ready() {
                seam::halt();
            }
        }
    }

    /// Lets pending bottom halves and run-queue work of this CPU run, without waiting.
    pub fn run_pending(&self) {
        dispatch::run_pending_from_task(self);
        // A snapshot would be exact; a bound is enough to keep a task that schedules itself from running for ever here.
        let mut left = 64;
        // SAFETY: a Task token exists once per CPU and this is not re-entered from a run-queue handler, which gets no
        // way to call back here while the item in hand is already off the queue.
        while left > 0 && unsafe { work::run_one::<Task>(self) } == work::Ran::Item {
            left -= 1;
        }
    }

    /// Runs a future to its end on this CPU, waiting as [`Task::wait_until`] does. Its wakers may be used in any context.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let flag = Arc::new(Flag { woken: AtomicBool::new(true), cpu: cpu::current() });
        let waker = Waker::from(Arc::clone(&flag));
        let mut cx = PollContext::from_waker(&waker);
        let mut future = pin!(future);
        loop {
            self.wait_until(|| flag.woken.swap(false, Ordering::AcqRel));
            if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                return value;
            }
        }
    }
}

struct Flag {
    woken: AtomicBool,
    cpu: usize,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        if self.cpu != cpu::current() {
            seam::kick(self.cpu);
        }
    }
}
