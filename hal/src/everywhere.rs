//! Something to do once on every CPU, waited for.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use crate::clock::Instant;
use crate::context::{BottomHalf, Task};
use crate::cpu;
use crate::work::{BottomHalfWork, Turn};

/// How long the CPUs may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs `f`, with the CPU's number, once on each of the first `count` CPUs, in bottom-half context. Returns whether all have; one that has not
/// may still, later.
pub(crate) fn run(cx: &Task, count: usize, f: impl Fn(usize) + Send + Sync + 'static) -> bool {
    let f = Arc::new(f);
    let done = Arc::new(AtomicUsize::new(0));
    let works: Vec<_> = (0..count)
        .map(|cpu| {
            let (f, done) = (Arc::clone(&f), Arc::clone(&done));
            BottomHalfWork::new(cpu, move |_: &BottomHalf| {
                f(cpu);
                done.fetch_add(1, Ordering::AcqRel);
                Turn::Done
            })
        })
        .collect();
    works.iter().for_each(BottomHalfWork::schedule);
    let started = Instant::now();
    while done.load(Ordering::Acquire) < works.len() {
        if started.elapsed() > PATIENCE {
            return false;
        }
        cx.run_pending();
        cpu::relax();
    }
    works.into_iter().for_each(|work| work.remove(cx));
    true
}
