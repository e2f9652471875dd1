//! The dispatcher: the only maker of context tokens.
//!
//! A platform calls [`interrupt`], [`alarm`] and [`kicked`] from its interrupt stubs, and [`enter_task`] once per CPU. Bottom
//! halves run when the outermost interrupt ends, with interrupts on, never nested, in bounded batches; and whenever task context waits.

use core::sync::atomic::Ordering;

use crate::broken::{self, Hazard};
use crate::context::{BottomHalf, HardIrq, Kind, Task};
use crate::irq::Slot;
use crate::platform::seam;
use crate::work::Ran;
use crate::{cpu, sync, system, work};

/// Bottom halves that run at one interrupt's end before tasks get a turn.
const BATCH: usize = 64;

/// Runs the handlers of `slot` in hard interrupt context, acknowledges by `end_of_interrupt`, and then runs bottom halves
/// if this was the outermost interrupt. Returns with interrupts off.
///
/// # Safety
/// Called by the platform in a hardware interrupt on this CPU, with interrupts off, on a stack that may run bottom halves.
pub unsafe fn interrupt(slot: Slot, end_of_interrupt: impl FnOnce()) {
    // SAFETY: passed on from the caller.
    unsafe { hard_irq(|cx| system::with(|system| system.slots.run(slot, cx)), end_of_interrupt) }
}

/// This CPU's alarm went off.
///
/// # Safety
/// As [`interrupt`].
pub unsafe fn alarm(end_of_interrupt: impl FnOnce()) {
    // SAFETY: passed on from the caller.
    unsafe { hard_irq(|cx| system::with(|system| system.slots.run_alarm(cx)), end_of_interrupt) }
}

/// Another CPU (or this one) asked for a look at the queues.
///
/// # Safety
/// As [`interrupt`].
pub unsafe fn kicked(end_of_interrupt: impl FnOnce()) {
    // SAFETY: passed on from the caller. Nothing to do in hard interrupt context: its end looks at the queues.
    unsafe { hard_irq(|_| (), end_of_interrupt) }
}

/// # Safety
/// As [`interrupt`].
unsafe fn hard_irq(run: impl FnOnce(&HardIrq), end_of_interrupt: impl FnOnce()) {
    let before = system::with_cpu(|cpu| {
        cpu.irq_depth.store(cpu.irq_depth.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        // What the interrupted code holds cannot be what handlers take: irq-shared locks are held with interrupts off.
        let ranks = cpu.held_ranks();
        cpu.set_held_ranks(0);
        (cpu.set_kind(Kind::HardIrq), ranks)
    });
    {
        // SAFETY: we are the dispatcher, in a hardware interrupt by the caller's contract; the token lives for this call.
        let token = unsafe { HardIrq::new() };
        run(&token);
    }
    end_of_interrupt();
    let outermost = system::with_cpu(|cpu| {
        cpu.set_kind(before.0);
        cpu.set_held_ranks(before.1);
        let depth = cpu.irq_depth.load(Ordering::Relaxed) - 1;
        cpu.irq_depth.store(depth, Ordering::Relaxed);
        depth == 0
    });
    if outermost {
        // SAFETY: interrupts are off, and no hard interrupt is being handled.
        unsafe { run_bottom_halves() };
    }
}

/// Runs a batch of this CPU's bottom halves unless they are running already or held off.
///
/// # Safety
/// Interrupts are off and no hard interrupt is being handled on this CPU. Interrupts are on while bottom halves run, off on return.
unsafe fn run_bottom_halves() {
    let may_run = system::with_cpu(|cpu| {
        let free = !cpu.bottom_halves.is_empty()
            && cpu.bottom_halves_off.load(Ordering::Relaxed) == 0
            && !cpu.in_bottom_half.load(Ordering::Relaxed);
        if free {
            cpu.in_bottom_half.store(true, Ordering::Relaxed);
        }
        free
    });
    if !may_run {
        return;
    }
    let before = system::with_cpu(|cpu| cpu.set_kind(Kind::BottomHalf));
    // SAFETY: we are the dispatcher, about to run bottom halves; the token lives for this call.
    let token = unsafe { BottomHalf::new() };
    let mut left = BATCH;
    loop {
        seam::irq_restore(true);
        let mut last = Ran::Item;
        while left > 0 && last == Ran::Item {
            // SAFETY: `in_bottom_half` makes this CPU's only consumer.
            last = unsafe { work::run_one(&token) };
            sync::assert_unlocked("a bottom half ends");
            left -= 1;
        }
        seam::irq_save();
        // An interrupt may have queued something after the queue was found empty, and seen that bottom halves were running: it relied on this
        // look. A push under way needs none: its producer announces it when it is whole.
        let relied_on = last == Ran::Empty && !broken::is(Hazard::NoSecondLook) && work::pending(Kind::BottomHalf);
        if !relied_on || left == 0 {
            break;
        }
    }
    let more = system::with_cpu(|cpu| {
        cpu.set_kind(before);
        cpu.in_bottom_half.store(false, Ordering::Relaxed);
        !cpu.bottom_halves.is_empty()
    });
    if more && left == 0 {
        system::with_cpu(|cpu| cpu.bottom_half_counters.exhausted());
        // The batch is used up: tasks get a turn before the kick brings us back.
        seam::kick(cpu::current());
    }
}

/// Runs this CPU's pending bottom halves from task context.
pub(crate) fn run_pending_from_task(_task: &Task) {
    let were_on = seam::irq_save();
    // SAFETY: interrupts are off; a Task token means that no hard interrupt is being handled here.
    unsafe { run_bottom_halves() };
    seam::irq_restore(were_on);
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
    }
}

/// Keeps bottom halves from running on this CPU while it lives; nests. In task context the end of the outermost one runs what
/// was held off.
#[derive(Debug)]
pub struct BottomHalvesOff {
    _here: core::marker::PhantomData<*mut ()>,
}

impl BottomHalvesOff {
    pub(crate) fn new() -> Self {
        system::with_cpu(|cpu| {
            cpu.bottom_halves_off.store(cpu.bottom_halves_off.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        });
        Self { _here: core::marker::PhantomData }
    }
}

impl Drop for BottomHalvesOff {
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
