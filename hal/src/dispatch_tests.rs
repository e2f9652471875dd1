//! Tasks get their turn; a line that nobody claims is masked.

use super::*;
use crate::hosted::Cpus;
use crate::irq::{self, Handled, IrqError, IrqLine, STORM, Storm};
use crate::work::{BottomHalfWork, Turn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// A task that never looks at its queues, beside a bottom half that always wants another turn. Returns whether the task got
/// through before the bottom half had run a million times.
fn gets_through() -> bool {
    Cpus::new(1).run(0, |task| {
        let done = Arc::new(AtomicBool::new(false));
        let starved = Arc::new(AtomicBool::new(false));
        let runs = AtomicU64::new(0);
        let (theirs, flag) = (Arc::clone(&done), Arc::clone(&starved));
        let work = BottomHalfWork::new(0, move |_| {
            let enough = runs.fetch_add(1, Ordering::Relaxed) >= 1_000_000;
            if enough && !theirs.load(Ordering::Relaxed) {
                flag.store(true, Ordering::Relaxed);
            }
            if enough || theirs.load(Ordering::Relaxed) { Turn::Done } else { Turn::Again }
        });
        work.schedule();
        // Each lets interrupts in.
        for _ in 0..100 {
            cpu::relax();
        }
        done.store(true, Ordering::Relaxed);
        work.remove(task);
        !starved.load(Ordering::Relaxed)
    })
}

#[test]
fn a_bottom_half_without_end_does_not_starve_a_task() {
    assert!(gets_through());
}

#[test]
fn a_bottom_half_without_end_does_not_starve_a_task_control() {
    assert!(!broken::with(Hazard::NoTaskTurn, gets_through));
}

/// A turn ends by itself: what a batch left over runs though the task never looks.
#[test]
fn what_a_batch_left_over_runs_after_the_turn() {
    Cpus::new(1).run(0, |_| {
        let runs = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&runs);
        let most = 10 * BATCH as u64;
        let work = BottomHalfWork::new(0, move |_| {
            if counted.fetch_add(1, Ordering::Relaxed) + 1 < most { Turn::Again } else { Turn::Done }
        });
        work.schedule();
        while runs.load(Ordering::Relaxed) < most {
            cpu::relax();
        }
    });
}

const LINE: IrqLine = IrqLine { number: 7, level: true, low: true };

#[test]
fn a_line_that_nobody_claims_is_masked_and_told_once() {
    let machine = Cpus::new(1);
    machine.run(0, |task| {
        let claim = Arc::new(AtomicBool::new(true));
        let says = Arc::clone(&claim);
        let handler = move |_: &HardIrq| if says.load(Ordering::Relaxed) { Handled::Yes } else { Handled::No };
        let interrupt = irq::line(task, LINE, handler).unwrap();
        let raise = |times| {
            for _ in 0..times {
                machine.raise(0, Slot(0));
                cpu::relax();
            }
        };
        // Not in a row: one that is claimed begins the count again.
        claim.store(false, Ordering::Relaxed);
        raise(STORM - 1);
        claim.store(true, Ordering::Relaxed);
        raise(1);
        claim.store(false, Ordering::Relaxed);
        raise(STORM - 1);
        assert!(!machine.was_masked(LINE.number));
        raise(1);
        assert!(machine.was_masked(LINE.number));
        assert_eq!(irq::storm(task), Some(Storm { line: LINE, unclaimed: STORM }));
        raise(10);
        assert_eq!(irq::storm(task), None);
        assert_eq!(interrupt.count(), u64::from(2 * STORM + 10));
        assert_eq!(irq::taken(0).device, u64::from(2 * STORM + 10));
        assert_eq!(interrupt.raise(), Err(IrqError::Unsupported));
    });
}

#[test]
fn a_message_can_be_raised_on_its_cpu() {
    Cpus::new(1).run(0, |task| {
        let (interrupt, _) = irq::message(task, 0, |_| Handled::Yes).unwrap();
        interrupt.raise().unwrap();
        assert_eq!(interrupt.count(), 1);
    });
}
