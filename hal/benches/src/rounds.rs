//! Rounds: each candidate in turn, many times over, so that a machine that slows down slows all of them.

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use crate::platform;

/// Nanoseconds per operation of one candidate, a number for each round.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The candidate.
    pub name: &'static str,
    /// Sorted.
    nanos: Vec<f64>,
}

impl Measured {
    /// The middle of all rounds.
    pub fn median(&self) -> f64 {
        self.nanos[self.nanos.len() / 2]
    }

    /// The best round.
    pub fn least(&self) -> f64 {
        self.nanos[0]
    }
}

/// A candidate: its name, and what does a round of it and returns nanoseconds per operation.
pub type Candidate<'a> = (&'static str, Box<dyn FnMut() -> f64 + 'a>);

/// The candidates' numbers, and for each its ratio to the first, taken in each round and then the middle of that.
pub fn interleaved(rounds: usize, candidates: &mut [Candidate<'_>]) -> Vec<(Measured, f64)> {
    for (_, round) in candidates.iter_mut() {
        round();
    }
    let table: Vec<Vec<f64>> =
        (0..rounds.max(1)).map(|_| candidates.iter_mut().map(|(_, round)| round()).collect()).collect();
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values
    };
    candidates
        .iter()
        .enumerate()
        .map(|(at, (name, _))| {
            let nanos = sorted(table.iter().map(|row| row[at]).collect());
            let ratios = sorted(table.iter().map(|row| row[at] / row[0]).collect());
            (Measured { name, nanos }, ratios[ratios.len() / 2])
        })
        .collect()
}

/// Runs `work(cpu)` on as many threads as there are to be CPUs, from the same moment on. Nanoseconds until the last is done.
pub fn on_cpus(cpus: usize, work: impl Fn(usize) + Sync) -> f64 {
    if cpus == 1 {
        platform::become_cpu(0);
        let start = Instant::now();
        work(0);
        return start.elapsed().as_nanos() as f64;
    }
    let barrier = Barrier::new(cpus + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus)
            .map(|cpu| {
                let (barrier, work) = (&barrier, &work);
                scope.spawn(move || {
                    platform::become_cpu(cpu);
                    barrier.wait();
                    let start = Instant::now();
                    work(cpu);
                    (start, Instant::now())
                })
            })
            .collect();
        barrier.wait();
        let times: Vec<_> = threads.into_iter().filter_map(|thread| thread.join().ok()).collect();
        let first = times.iter().map(|time| time.0).min();
        let last = times.iter().map(|time| time.1).max();
        first.zip(last).map_or(0.0, |(first, last)| (last - first).as_nanos() as f64)
    })
}
