//! How long it takes from an interrupt by a bottom half to a task that waits. Task context.
//!
//! The CPU raises an interrupt on itself, as a device would; the handler schedules a bottom half, and that makes true what the task waits for.
//! Counted in the processor's cycles from just before the interrupt is raised.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use undercroft_hal::irq::{self, Handled};
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::{Task, clock, cpu};

use crate::histogram::Histogram;
use crate::json::{Object, Value};
use crate::report::Report;

/// Interrupts that are measured, after some that are not.
const ROUNDS: u64 = 1000;
const WARM_UP: u64 = 50;

/// When each step of one round was reached, in cycles.
#[derive(Default)]
struct Steps {
    handler: AtomicU64,
    bottom_half: AtomicU64,
    done: AtomicBool,
}

/// Cycles from the interrupt to each step.
pub(crate) struct Latency {
    handler: Histogram,
    bottom_half: Histogram,
    task: Histogram,
}

/// Measures on this CPU. `None` where the platform cannot raise an interrupt by itself.
pub(crate) fn measure(cx: &Task) -> Option<Box<Latency>> {
    let steps = Arc::new(Steps::default());
    let theirs = Arc::clone(&steps);
    let work = BottomHalfWork::new(cpu::current(), move |_| {
        theirs.bottom_half.store(clock::cycles(), Ordering::Relaxed);
        theirs.done.store(true, Ordering::Release);
        Turn::Done
    });
    let theirs = Arc::clone(&steps);
    let handler = move |_: &undercroft_hal::HardIrq| {
        theirs.handler.store(clock::cycles(), Ordering::Relaxed);
        work.schedule();
        Handled::Yes
    };
    let (interrupt, _) = irq::message(cx, cpu::current(), handler).ok()?;
    let mut latency =
        Box::new(Latency { handler: Histogram::new(), bottom_half: Histogram::new(), task: Histogram::new() });
    for round in 0..WARM_UP + ROUNDS {
        steps.done.store(false, Ordering::Relaxed);
        let mut raised = None;
        // Raised with interrupts off, when the task is about to halt: it comes as the halt begins, as a device's mostly does.
        cx.wait_until(|| {
            if raised.is_none() {
                raised = Some((clock::cycles(), interrupt.raise()));
            }
            steps.done.load(Ordering::Acquire) || matches!(raised, Some((_, Err(_))))
        });
        let now = clock::cycles();
        let (start, result) = raised?;
        result.ok()?;
        if round >= WARM_UP {
            latency.handler.add(steps.handler.load(Ordering::Relaxed).saturating_sub(start));
            latency.bottom_half.add(steps.bottom_half.load(Ordering::Relaxed).saturating_sub(start));
            latency.task.add(now.saturating_sub(start));
        }
    }
    Some(latency)
}

/// Measures and reports. `false` where nothing can be measured.
pub(crate) fn phase(cx: &Task, report: &Report) -> bool {
    let Some(latency) = measure(cx) else { return false };
    let steps = [&latency.handler, &latency.bottom_half, &latency.task].map(|h| [h.percentile(50), h.percentile(99)]);
    let [handler, bottom_half, task] = steps;
    if report.is_json() {
        report.json(&Object {
            event: Some("latency"),
            fields: &[
                ("rounds", Value::Number(ROUNDS)),
                ("handler_p50", Value::Number(handler[0])),
                ("handler_p99", Value::Number(handler[1])),
                ("bottom_half_p50", Value::Number(bottom_half[0])),
                ("bottom_half_p99", Value::Number(bottom_half[1])),
                ("task_p50", Value::Number(task[0])),
                ("task_p99", Value::Number(task[1])),
            ],
        });
    } else {
        report.text(format_args!(
            "from an interrupt, in cycles (p50, p99): to its handler {} {}, to a bottom half {} {}, to a waiting task {} {}",
            handler[0], handler[1], bottom_half[0], bottom_half[1], task[0], task[1]
        ));
    }
    true
}
