//! CPUs that really run at the same time: for what happens while a handler runs elsewhere.
//!
//! Each CPU is a thread. CPU 0 is the scenario's; the others take interrupts, run bottom halves and do what they are asked to. Time goes on
//! when the scenario says so. A scenario that waits for what does not come fails after a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use undercroft_hal::executor::{self, JoinHandle};
use undercroft_hal::hosted::Cpus;
use undercroft_hal::{Task, cpu};

use crate::lab::Intruder;

/// Longer than anything takes here, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine and its CPUs.
pub struct Crew {
    cpus: Arc<Cpus>,
    over: AtomicBool,
}

impl Crew {
    /// Runs `scenario` as the task of CPU 0 of a machine of `count` CPUs, the others of which are at its service.
    pub fn run<R>(count: usize, scenario: impl FnOnce(&Self, &Task) -> R) -> R {
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let crew = Self { cpus: Cpus::with_manual_clock(count, 1_000_000), over: AtomicBool::new(false) };
        std::thread::scope(|scope| {
            for index in 1..count {
                let crew = &crew;
                scope.spawn(move || {
                    crew.cpus.run(index, |task| {
                        while !crew.over.load(Ordering::SeqCst) {
                            task.run_pending();
                            cpu::relax();
                        }
                    });
                });
            }
            // Also if the scenario panics: the threads must end.
            let _over = Over(&crew.over);
            crew.cpus.run(0, |task| scenario(&crew, task))
        })
    }

    /// Lets time pass, by nanoseconds.
    pub fn advance(&self, by: u64) {
        self.cpus.advance(Duration::from_nanos(by));
    }

    /// Raises an interrupt on `cpu`.
    pub fn interrupt(&self, cpu: usize, intruder: &Intruder) {
        self.cpus.raise(cpu, intruder.slot());
    }

    /// Has `cpu` do something in task context.
    pub fn ask<T: Send + 'static>(
        &self,
        task: &Task,
        cpu: usize,
        deed: impl FnOnce(&Task) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        executor::run_on(task, cpu, deed)
    }

    /// Lets this CPU take its interrupts until `seen` holds.
    ///
    /// # Panics
    /// If it does not come to hold.
    #[track_caller]
    pub fn until(&self, task: &Task, mut seen: impl FnMut() -> bool) {
        let started = Instant::now();
        while !seen() {
            assert!(started.elapsed() < PATIENCE, "waited in vain");
            task.run_pending();
            cpu::relax();
        }
    }

    /// Waits for what was asked for.
    #[track_caller]
    pub fn join<T>(&self, task: &Task, handle: &JoinHandle<T>) -> T {
        let mut result = None;
        self.until(task, || {
            result = result.take().or_else(|| handle.try_take());
            result.is_some()
        });
        result.expect("seen")
    }
}

/// A door that one CPU opens and another waits at, in any context and without letting interrupts in.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(AtomicBool, AtomicBool)>);

impl Gate {
    /// Says that somebody is here, and waits until the gate is open.
    pub fn pass(&self) {
        self.0.0.store(true, Ordering::SeqCst);
        let started = Instant::now();
        while !self.0.1.load(Ordering::SeqCst) {
            assert!(started.elapsed() < PATIENCE, "nobody opened the gate");
            std::thread::yield_now();
        }
    }

    /// Whether somebody is at the gate, or was.
    pub fn reached(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    pub fn open(&self) {
        self.0.1.store(true, Ordering::SeqCst);
    }
}
