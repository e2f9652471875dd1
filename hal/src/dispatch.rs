//! The dispatcher: the only maker of context tokens.
//!
//! A platform calls [`interrupt`], [`alarm`] and [`kicked`] from its interrupt stubs, each followed by [`bottom_halves`] if it says so, and
//! [`enter_task`] once per CPU. Bottom halves run when the outermost interrupt ends, with interrupts on, never nested, on a stack that the
//! platform chooses; and whenever task context waits. A batch is bounded in number and time. If it leaves something over, the interrupted
//! task has a turn of about the same length, in which interrupts do not run bottom halves; a task that waits gives its turn up.

use core::sync::atomic::Ordering;

use crate::broken::{self, Hazard};
use crate::clock::{Duration, Instant};
use crate::context::{BottomHalf, HardIrq, Kind, Task};
use crate::irq::{Arrival, Slot};
use crate::platform::seam;
use crate::work::Ran;
use crate::{cpu, sync, system, work};

/// Bottom halves that run in one batch before tasks get a turn.
const BATCH: usize = 64;
/// After how many bottom halves a batch looks at the clock, and how long it may take.
const LOOK_AT_CLOCK: usize = 8;
const BATCH_TIME: Duration = Duration::from_millis(2);
/// A task's turn after a batch that left something over: as long as the batch, within these bounds.
const SHORTEST_TURN: Duration = Duration::from_micros(50);
const LONGEST_TURN: Duration = Duration::from_millis(1);

/// Runs the handlers of `slot` in hard interrupt context and acknowledges by `end_of_interrupt`. If this was the outermost
/// interrupt and bottom halves are to run, `true`: the platform must call [`bottom_halves`] before it returns from the interrupt.
///
/// # Safety
/// Called by the platform in a hardware interrupt on this CPU, with interrupts off; what it returns is heeded.
#[must_use]
pub unsafe fn interrupt(slot: Slot, end_of_interrupt: impl FnOnce()) -> bool {
    // SAFETY: passed on from the caller.
    unsafe { hard_irq(Arrival::Device, |cx| system::with(|system| system.slots.run(slot, cx)), end_of_interrupt) }
}

/// This CPU's alarm went off. Returns as [`interrupt`].
///
/// # Safety
/// As [`interrupt`].
#[must_use]
pub unsafe fn alarm(end_of_interrupt: impl FnOnce()) -> bool {
    // SAFETY: passed on from the caller.
    unsafe { hard_irq(Arrival::Alarm, |cx| system::with(|system| system.slots.run_alarm(cx)), end_of_interrupt) }
}

/// Another CPU (or this one) asked for a look at the queues. Returns as [`interrupt`].
///
/// # Safety
/// As [`interrupt`].
#[must_use]
pub unsafe fn kicked(end_of_interrupt: impl FnOnce()) -> bool {
    // SAFETY: passed on from the caller. The queues are looked at when it ends.
    unsafe { hard_irq(Arrival::Kick, |cx| system::with(|system| system.slots.run_kick(cx)), end_of_interrupt) }
}

/// # Safety
/// As [`interrupt`].
unsafe fn hard_irq(arrival: Arrival, run: impl FnOnce(&HardIrq), end_of_interrupt: impl FnOnce()) -> bool {
    let interrupted = Interrupted::new(arrival);
    {
        // SAFETY: we are the dispatcher, in a hardware interrupt by the caller's contract; the token lives for this call.
        let token = unsafe { HardIrq::new() };
        run(&token);
    }
    end_of_interrupt();
    drop(interrupted);
    let outermost = system::with_cpu(|cpu| cpu.irq_depth.load(Ordering::Relaxed) == 0);
    outermost && claim(Asks::Interrupt)
}

/// What an interrupt interrupted. Put back when it goes, also if a handler of a test unwinds.
struct Interrupted {
    kind: Kind,
    ranks: u64,
}

impl Interrupted {
    fn new(arrival: Arrival) -> Self {
        system::with_cpu(|cpu| {
            cpu.arrivals.count(arrival);
            cpu.irq_depth.store(cpu.irq_depth.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            // What the interrupted code holds cannot be what handlers take: irq-shared locks are held with interrupts off.
            let ranks = cpu.held_ranks();
            cpu.set_held_ranks(0);
            Self { kind: cpu.set_kind(Kind::HardIrq), ranks }
        })
    }
}

impl Drop for Interrupted {
    fn drop(&mut self) {
        system::with_cpu(|cpu| {
            cpu.set_kind(self.kind);
            cpu.set_held_ranks(self.ranks);
            cpu.irq_depth.store(cpu.irq_depth.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        });
    }
}

/// Who wants bottom halves to run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// An interrupt's end.
    Interrupt,
    /// A task, which gives up what is left of its turn.
    Task,
}

/// Whether bottom halves are to run here now. If so they count as running already. Interrupts are off.
fn claim(asks: Asks) -> bool {
    system::with_cpu(|cpu| {
        let free = !cpu.bottom_halves.is_empty()
            && cpu.bottom_halves_off.load(Ordering::Relaxed) == 0
            && !cpu.in_bottom_half.load(Ordering::Relaxed);
        if !free {
            return false;
        }
        let turn = cpu.task_turn.load(Ordering::Relaxed);
        if asks == Asks::Interrupt && turn != 0 && Instant::now().as_nanos() < turn {
            // The platform was told to come back when the turn is over.
            return false;
        }
        cpu.in_bottom_half.store(true, Ordering::Relaxed);
        true
    })
}

/// Runs a batch of this CPU's bottom halves: with interrupts on meanwhile, off on return.
///
/// # Safety
/// Called by the platform once after each call of [`interrupt`], [`alarm`] or [`kicked`] that returned `true`, with interrupts off and
/// no hard interrupt being handled on this CPU, on any stack that nothing else uses; bottom halves do not nest on a CPU.
pub unsafe fn bottom_halves() {
    let batch = Batch { before: system::with_cpu(|cpu| cpu.set_kind(Kind::BottomHalf)) };
    // SAFETY: we are the dispatcher, about to run bottom halves; the token lives for this call.
    let token = unsafe { BottomHalf::new() };
    let start = Instant::now();
    let mut left = BATCH;
    loop {
        seam::irq_restore(true);
        let mut last = Ran::Item;
        while left > 0 && last == Ran::Item {
            // SAFETY: `in_bottom_half` makes this CPU's only consumer.
            last = unsafe { work::run_one(&token) };
            sync::assert_unlocked("a bottom half ends");
            left -= 1;
            if left.is_multiple_of(LOOK_AT_CLOCK) && start.elapsed() > BATCH_TIME {
                left = 0;
            }
        }
        seam::irq_save();
        // An interrupt may have queued something after the queue was found empty, and seen that bottom halves were running: it relied on this
        // look. A push under way needs none: its producer announces it when it is whole.
        let relied_on = last == Ran::Empty && !broken::is(Hazard::NoSecondLook) && work::pending(Kind::BottomHalf);
        if !relied_on || left == 0 {
            break;
        }
    }
    drop(batch);
    let more = system::with_cpu(|cpu| !cpu.bottom_halves.is_empty());
    // The batch is used up: tasks get a turn before an interrupt brings us back.
    let turn = if more && left == 0 { give_turn(start) } else { 0 };
    system::with_cpu(|cpu| cpu.task_turn.store(turn, Ordering::Relaxed));
}

/// A batch that runs. Over when it goes, also if a handler of a test unwinds.
struct Batch {
    before: Kind,
}

impl Drop for Batch {
    fn drop(&mut self) {
        system::with_cpu(|cpu| {
            cpu.set_kind(self.before);
            cpu.in_bottom_half.store(false, Ordering::Relaxed);
        });
    }
}

/// Begins a task's turn after a batch that began at `start`. Returns its end, or 0 if the platform cannot come back at a time.
fn give_turn(start: Instant) -> u64 {
    system::with_cpu(|cpu| cpu.bottom_half_counters.exhausted());
    let now = Instant::now();
    let end = (now + now.since(start).clamp(SHORTEST_TURN, LONGEST_TURN)).as_nanos();
    if !broken::is(Hazard::NoTaskTurn) && seam::kick_at(end) {
        return end;
    }
    seam::kick(cpu::current());
    0
}

/// Runs this CPU's pending bottom halves from task context.
pub(crate) fn run_pending_from_task(_task: &Task) {
    let _off = cpu::IrqGuard::new();
    if claim(Asks::Task) {
        // SAFETY: interrupts are off and bottom halves are claimed; a Task token means that no hard interrupt is being handled here.
        unsafe { bottom_halves() };
    }
}

/// Makes sure that `home` looks at its queues: called after each push.
#[inline]
pub(crate) fn announce(home: usize) {
    let will_look = system::with_cpu(|cpu| {
        // The end of the interrupt, of the bottom half batch or of the section that holds them off looks anyway.
        cpu.irq_depth.load(Ordering::Relaxed) > 0
            || cpu.in_bottom_half.load(Ordering::Relaxed)
            || cpu.bottom_halves_off.load(Ordering::Relaxed) > 0
    });
    if home != cpu::current() || !will_look {
        seam::kick(home);
        if broken::is(Hazard::KickWaits) {
            wait_until_looked(home);
        }
    }
}

/// What no kick may do: the CPU may spin with interrupts off, for a lock that we hold.
#[cold]
fn wait_until_looked(home: usize) {
    let looked = (0..100_000).any(|_| {
        cpu::relax();
        system::with(|system| system.cpus[home].bottom_halves.is_empty())
    });
    assert!(looked, "a kick waits for a CPU that has interrupts off");
}

/// Keeps bottom halves from running on this CPU while it lives; nests. In task context the end of the outermost one runs what
/// was held off.
#[derive(Debug)]
pub struct BottomHalvesOff {
    _here: core::marker::PhantomData<*mut ()>,
}

impl BottomHalvesOff {
    #[inline]
    pub(crate) fn new() -> Self {
        system::with_cpu(|cpu| {
            cpu.bottom_halves_off.store(cpu.bottom_halves_off.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        });
        Self { _here: core::marker::PhantomData }
    }
}

impl Drop for BottomHalvesOff {
    #[inline]
    fn drop(&mut self) {
        let look = system::with_cpu(|cpu| {
            let off = cpu.bottom_halves_off.load(Ordering::Relaxed) - 1;
            cpu.bottom_halves_off.store(off, Ordering::Relaxed);
            off == 0 && cpu.kind() == Kind::Task && cpu.irq_depth.load(Ordering::Relaxed) == 0
        });
        if look && work::pending(Kind::BottomHalf) {
            // With interrupts off by the caller (an IrqSpinLock outside), the kick waits until they are on again.
            seam::kick(cpu::current());
        }
    }
}

/// Runs `f` in task context.
///
/// # Safety
/// Called by the platform on a CPU that is in no interrupt or bottom half, not nested, with interrupts on.
pub unsafe fn enter_task<R>(f: impl FnOnce(&Task) -> R) -> R {
    // SAFETY: passed on from the caller; the token lives for this call.
    let token = unsafe { Task::new() };
    f(&token)
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "dispatch_tests.rs"]
mod tests;
