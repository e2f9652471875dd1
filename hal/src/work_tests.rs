//! Deferred work on several CPUs at once: real threads, and shuttle's schedules.
//!
//! The same programme runs in both: each CPU schedules work on every CPU from task context, from interrupt handlers and from bottom halves,
//! and drops and removes work meanwhile. Checked: a handler never runs twice at a time, runs on its home CPU and in its context, sees what
//! was done before the schedule, and runs after the last schedule.

use super::*;
use crate::hosted::Cpus;
use crate::irq::{self, Handled, Slot};
use crate::sync;
use std::sync::Arc as StdArc;
use std::vec::Vec;

#[cfg(shuttle)]
use shuttle::{rand, thread};
#[cfg(not(shuttle))]
use std::thread;

/// What the handler of one work item saw.
#[derive(Default)]
struct Seen {
    busy: std::sync::atomic::AtomicBool,
    asked: std::sync::atomic::AtomicU32,
    done: std::sync::atomic::AtomicU32,
}

impl Seen {
    fn ask(&self, work: &BottomHalfWork) {
        self.asked.fetch_add(1, core::sync::atomic::Ordering::SeqCst);
        work.schedule();
    }

    fn handle(&self, home: usize) {
        use core::sync::atomic::Ordering::SeqCst;
        assert!(!self.busy.swap(true, SeqCst), "two runs at once");
        assert_eq!(cpu::current(), home, "ran away from its home");
        assert_eq!(crate::context::current(), Kind::BottomHalf);
        assert!(!sync::any_held());
        let asked = self.asked.load(SeqCst);
        #[cfg(shuttle)]
        thread::yield_now();
        self.done.fetch_max(asked, SeqCst);
        assert!(self.busy.swap(false, SeqCst));
    }

    fn all_done(&self) -> bool {
        use core::sync::atomic::Ordering::SeqCst;
        self.done.load(SeqCst) == self.asked.load(SeqCst)
    }
}

/// One CPU's part: `rounds` random actions, then waits until everything asked for anywhere is done.
fn programme(cpus: usize, rounds: u32, random: impl Fn() -> u64 + Clone + Send + 'static) {
    let machine = Cpus::new(cpus);
    let seen: StdArc<Vec<Seen>> = StdArc::new((0..cpus).map(|_| Seen::default()).collect());
    let works: StdArc<Vec<BottomHalfWork>> = machine.run(0, |_| {
        StdArc::new(
            (0..cpus)
                .map(|home| {
                    let seen = StdArc::clone(&seen);
                    Work::new(home, move |_: &BottomHalf| {
                        seen[home].handle(home);
                        Turn::Done
                    })
                })
                .collect(),
        )
    });
    // Slot 0's handler schedules on every CPU from hard interrupt context.
    let interrupt = machine.run(0, |task| {
        let (works, seen) = (StdArc::clone(&works), StdArc::clone(&seen));
        let handler = move |_: &crate::HardIrq| {
            seen.iter().zip(works.iter()).for_each(|(seen, work)| seen.ask(work));
            Handled::Yes
        };
        irq::message(task, 0, handler).expect("a slot").0
    });
    let running = StdArc::new([const { std::sync::atomic::AtomicUsize::new(0) }; 2]);
    running.iter().for_each(|barrier| barrier.store(cpus, core::sync::atomic::Ordering::SeqCst));
    let threads: Vec<_> = (0..cpus)
        .map(|index| {
            let (machine, works, seen, running) =
                (StdArc::clone(&machine), StdArc::clone(&works), StdArc::clone(&seen), StdArc::clone(&running));
            let random = random.clone();
            thread::spawn(move || {
                machine.run(index, |task| {
                    for _ in 0..rounds {
                        let target = random() as usize % seen.len();
                        match random() % 4 {
                            0 => machine.raise(target, Slot(0)),
                            1 => {
                                // Closed work never runs again; dropped or removed while queued, it is freed later.
                                let work = Work::new(target, |_: &BottomHalf| Turn::Done);
                                work.schedule();
                                if random().is_multiple_of(2) {
                                    work.remove(task);
                                }
                            }
                            _ => seen[target].ask(&works[target]),
                        }
                        cpu::relax();
                    }
                    // Two barriers: nobody raises interrupts after the first, nobody asks after the second.
                    for barrier in running.iter() {
                        cpu::relax();
                        barrier.fetch_sub(1, core::sync::atomic::Ordering::SeqCst);
                        while barrier.load(core::sync::atomic::Ordering::SeqCst) > 0 {
                            task.run_pending();
                            cpu::relax();
                        }
                    }
                    task.wait_until(|| seen[index].all_done());
                });
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    machine.run(0, |_| drop(interrupt));
    assert!(seen.iter().all(Seen::all_done));
}

#[cfg(not(any(loom, shuttle)))]
#[test]
fn stress_x07_work_on_three_cpus() {
    let state = StdArc::new(std::sync::atomic::AtomicU64::new(0x9e37_79b9_7f4a_7c15));
    // A counter through a mixer: good enough, and the same numbers whatever the threads do.
    let random = move || {
        let z = state.fetch_add(0x9e37_79b9_7f4a_7c15, core::sync::atomic::Ordering::Relaxed);
        (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32
    };
    programme(3, 3000, random);
}

#[cfg(shuttle)]
fn explore(iterations: usize) {
    use rand::Rng;
    use shuttle::scheduler::RandomScheduler;
    let mut config = shuttle::Config::new();
    // A machine's state is built on the stack before it moves to its Arc.
    config.stack_size = 1 << 20;
    let scene = || programme(4, 6, || rand::thread_rng().r#gen());
    shuttle::Runner::new(RandomScheduler::new(iterations), config).run(scene);
}

#[cfg(shuttle)]
#[test]
fn shuttle_work_on_four_cpus() {
    explore(3000);
}

/// An interrupt between the last look at the queue and the end of the batch queues work, and relies on the bottom halves that it saw running.
#[cfg(not(any(loom, shuttle)))]
fn work_queued_at_the_very_end() {
    let machine = Cpus::new(1);
    machine.run(0, |task| {
        let ran = StdArc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = StdArc::clone(&ran);
        let second = Work::new(0, move |_: &BottomHalf| {
            seen.store(true, core::sync::atomic::Ordering::SeqCst);
            Turn::Done
        });
        let handler = move |_: &crate::HardIrq| {
            second.schedule();
            Handled::Yes
        };
        let interrupt = irq::message(task, 0, handler).expect("a slot").0;
        let theirs = StdArc::clone(&machine);
        // Raised in the first item, the interrupt strikes when the dispatcher is about to turn interrupts off.
        let first = Work::new(0, move |_: &BottomHalf| {
            theirs.raise(0, Slot(0));
            Turn::Done
        });
        first.schedule();
        assert!(ran.load(core::sync::atomic::Ordering::SeqCst), "queued work waits for the next interrupt");
        drop(interrupt);
    });
}

#[cfg(not(any(loom, shuttle)))]
#[test]
fn a_pc_29_work_queued_at_the_very_end() {
    work_queued_at_the_very_end();
}

#[cfg(not(any(loom, shuttle)))]
#[test]
#[should_panic(expected = "waits for the next interrupt")]
fn a_pc_29_control_no_second_look() {
    crate::broken::with(crate::broken::Hazard::NoSecondLook, work_queued_at_the_very_end);
}
