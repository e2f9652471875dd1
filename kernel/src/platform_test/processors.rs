//! The other processors: tasks, bottom halves, alarms and interrupts on each, one clock for all.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use undercroft_hal::executor::{self, JoinHandle};
use undercroft_hal::irq::{self, Handled};
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::x86_64::{console, machine};
use undercroft_hal::{BottomHalf, Duration, HardIrq, Instant, Task, context, cpu};

/// Runs the checks, on however many there are.
pub fn check(task: &Task) {
    let count = cpu::count();
    tasks(task, count);
    bottom_halves(task, count);
    alarms(task, count);
    messages(task, count);
    clock(task, count);
    console::print(format_args!(
        "processors: {count} of {}, {} left out, stamps {} ticks apart\n",
        machine::processors(),
        machine::processors_left_out(),
        machine::stamps_apart(),
    ));
    for cpu in 0..count {
        let taken = irq::taken(cpu);
        assert!(taken.device >= 100 && taken.kick > 0 && taken.alarm > 0, "processor {cpu}: {taken:?}");
    }
}

/// Runs `f` on every processor, this one last.
fn on_all<T: Send + 'static>(task: &Task, f: impl Fn(&Task) -> T + Clone + Send + 'static) -> Vec<T> {
    let start = |cpu| {
        let f = f.clone();
        executor::run_on(task, cpu, move |task| f(task))
    };
    let handles: Vec<JoinHandle<T>> = (0..cpu::count()).map(start).collect();
    handles.into_iter().map(|handle| task.block_on(handle)).collect()
}

/// Functions and asynchronous tasks run on the processor that was asked for.
fn tasks(task: &Task, count: usize) {
    for _ in 0..50 {
        let seen = on_all(task, |_| (cpu::current(), context::current()));
        assert!(seen.into_iter().enumerate().all(|(cpu, seen)| seen == (cpu, context::Kind::Task)));
    }
    let hop = |cpu| executor::spawn_on(task, cpu, async move { cpu::current() }).expect("a slot");
    for cpu in 0..count {
        assert_eq!(task.block_on(hop(cpu)), cpu);
    }
}

/// Work for another processor runs there, in bottom-half context.
fn bottom_halves(task: &Task, count: usize) {
    const ROUNDS: u32 = 200;
    for cpu in 0..count {
        let done = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&done);
        let work = BottomHalfWork::new(cpu, move |_: &BottomHalf| {
            assert_eq!((cpu::current(), context::current()), (cpu, context::Kind::BottomHalf));
            counted.fetch_add(1, Ordering::Relaxed);
            Turn::Done
        });
        for round in 0..ROUNDS {
            work.schedule();
            while done.load(Ordering::Relaxed) <= round {
                cpu::relax();
            }
        }
        work.remove(task);
    }
}

/// Each has an alarm of its own.
fn alarms(task: &Task, count: usize) {
    static FIRED: [AtomicU64; cpu::MAX_CPUS] = [const { AtomicU64::new(0) }; cpu::MAX_CPUS];
    fn fired(_: &HardIrq) {
        FIRED[cpu::current()].store(Instant::now().as_nanos(), Ordering::Release);
    }
    irq::set_alarm_handler(task, fired);
    let waits = on_all(task, |task| {
        let at = Instant::now() + Duration::from_millis(2);
        irq::set_alarm(Some(at));
        let mine = &FIRED[cpu::current()];
        task.wait_until(|| mine.load(Ordering::Acquire) != 0);
        (at.as_nanos(), mine.load(Ordering::Relaxed))
    });
    assert_eq!(waits.len(), count);
    assert!(waits.iter().all(|(at, fired)| fired >= at), "early: {waits:?}");
}

/// Message interrupts arrive where they were routed.
fn messages(task: &Task, count: usize) {
    const ROUNDS: u32 = 100;
    for cpu in 0..count {
        let taken = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&taken);
        let handler = move |_: &HardIrq| {
            assert_eq!(cpu::current(), cpu);
            counted.fetch_add(1, Ordering::Relaxed);
            Handled::Yes
        };
        let (interrupt, _) = irq::message(task, cpu, handler).expect("a vector");
        for round in 0..ROUNDS {
            interrupt.raise().expect("a raised interrupt");
            while taken.load(Ordering::Relaxed) <= round {
                cpu::relax();
            }
        }
        assert_eq!(interrupt.count(), u64::from(ROUNDS));
    }
    assert!(irq::message(task, count, |_| Handled::No).is_err(), "a processor that there is not");
}

/// What one processor reads of the clock is never before what another read earlier.
fn clock(task: &Task, count: usize) {
    static LATEST: AtomicU64 = AtomicU64::new(0);
    static HERE: AtomicU32 = AtomicU32::new(0);
    let all = count as u32;
    let back = on_all(task, move |_| {
        HERE.fetch_add(1, Ordering::SeqCst);
        while HERE.load(Ordering::SeqCst) < all {
            cpu::relax();
        }
        let start = Instant::now();
        let mut worst = 0;
        while start.elapsed() < Duration::from_millis(30) {
            let before = LATEST.load(Ordering::SeqCst);
            let now = Instant::now().as_nanos();
            worst = worst.max(before.saturating_sub(now));
            LATEST.fetch_max(now, Ordering::SeqCst);
        }
        worst
    });
    assert!(back.iter().all(|&worst| worst == 0), "the clock went back: {back:?} ns");
}

/// A bottom half that always wants another turn leaves a task that never looks at its queues time to get on.
pub fn fairness(task: &Task) {
    let stop = Arc::new(AtomicBool::new(false));
    let runs = Arc::new(AtomicU64::new(0));
    let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&runs));
    let work = BottomHalfWork::new(cpu::current(), move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        if stopped.load(Ordering::Relaxed) { Turn::Done } else { Turn::Again }
    });
    work.schedule();
    let (start, mut steps) = (Instant::now(), 0_u64);
    while start.elapsed() < Duration::from_millis(50) {
        steps += 1;
    }
    let taken = runs.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    work.remove(task);
    console::print(format_args!("fairness: {steps} steps beside {taken} bottom halves\n"));
    assert!(steps > 1000, "the task made {steps} steps in 50 ms");
    assert!(taken > 1000, "bottom halves ran {taken} times in 50 ms");
}
