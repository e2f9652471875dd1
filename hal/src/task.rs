//! Task context: waiting. The only context that may.

use crate::context::{Kind, Task};
use crate::cpu::IrqGuard;
use crate::platform::seam;
use crate::{dispatch, sync, work};

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
        // SAFETY: Task tokens exist in this CPU's task context only, so consumers follow one another. A run-queue handler that waits may come
        // back here, after its own pop is over.
        while left > 0 && unsafe { work::run_one::<Task>(self) } == work::Ran::Item {
            left -= 1;
        }
    }
}
