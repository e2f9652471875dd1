//! Task context: waiting. The only context that may.

use crate::context::{Kind, Task};
use crate::cpu::IrqGuard;
use crate::platform::seam;
use crate::{dispatch, sync, work};

impl Task {
    /// Waits until `ready` holds, running this CPU's bottom halves and run-queue work meanwhile and halting the CPU when there
    /// is nothing to run. `ready` is called with interrupts off. What makes it true must be followed by an interrupt, a kick or scheduled work on this CPU.
    ///
    /// # Panics
    /// In debug and test builds, if a lock is held.
    pub fn wait_until(&self, mut ready: impl FnMut() -> bool) {
        sync::assert_unlocked("a task waits");
        loop {
            self.run_pending();
            let _off = IrqGuard::new();
            // Asked at one place, and believed at once: `ready` may take what it was waiting for.
            if ready() {
                return;
            }
            // With interrupts off nothing can become ready between that look and the halt, which ends at an interrupt.
            if !work::pending(Kind::BottomHalf) && !work::pending(Kind::Task) {
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

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use crate::hosted::Cpus;
    use crate::platform::seam;

    /// A condition may take what it waits for: asked again after it held, it would be false for ever.
    #[test]
    fn a_condition_that_held_is_not_asked_again() {
        Cpus::new(1).run(0, |task| {
            let mut calls = 0;
            task.wait_until(|| {
                calls += 1;
                assert!(calls <= 2, "asked again after it held");
                seam::kick(0);
                calls == 2
            });
        });
    }
}
