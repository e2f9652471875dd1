//! Two threads, each with its own wheel, as each CPU has.

use std::sync::Barrier;
use std::thread;

use undercroft_hal_benches::platform;

use crate::subject::{Loaded, OUTSTANDING, Rounds, Subject};

/// Each thread has half of those outstanding, and stops and starts any of its own: nanoseconds for each pair, the slower thread's.
pub fn pairs<S: Subject>(count: usize) -> f64 {
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|cpu| {
                let barrier = &barrier;
                scope.spawn(move || {
                    platform::become_cpu(cpu);
                    let mut loaded = Loaded::<S>::new(OUTSTANDING / 2, 99 + cpu as u64);
                    barrier.wait();
                    let nanos = loaded.pairs(count);
                    barrier.wait();
                    nanos
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).fold(0.0, f64::max)
    })
}
