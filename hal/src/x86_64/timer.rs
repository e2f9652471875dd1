//! One alarm per processor, on the local APIC's timer, or on Hyper-V's synthetic timer 0 where there is one that interrupts directly.
//!
//! The timer serves the alarm of `hal`, its kick at a time and the watchdog's look: it is armed for the earliest. It never
//! fires the alarm early: a count-down that ends too soon is started again.
//!
//! Source: Intel SDM volume 3, 12.5.4; Hyper-V TLFS 12.3 (synthetic timers).

use core::sync::atomic::{AtomicBool, Ordering};

use super::{apic, clock, interrupts, percpu, registers, watchdog};
use crate::clock::countdown::{self, NEVER, Times};
use crate::clock::scale::Scale;
use crate::cpu::MAX_CPUS;
use crate::hyperv::registers::bare::{
    STIMER_AUTO_ENABLE, STIMER_DIRECT, STIMER_VECTOR_SHIFT, STIMER0_CONFIG, STIMER0_COUNT,
};

pub(super) use crate::clock::countdown::Expired;

/// MSR of the deadline in TSC-deadline mode.
const TSC_DEADLINE: u32 = 0x6E0;

static TIMES: [Times; MAX_CPUS] = [const { Times::new() }; MAX_CPUS];
static USES_DEADLINE: AtomicBool = AtomicBool::new(false);
static USES_SYNTHETIC: AtomicBool = AtomicBool::new(false);
/// The count-down's rate.
static RATE: Scale = Scale::new();

/// Whether the processor's timer can wait for a time-stamp.
pub(super) fn has_tsc_deadline() -> bool {
    registers::cpuid(1, 0).ecx & 1 << 24 != 0
}

/// Starts this processor's timer, with nothing armed. `ticks_per_second` is the count-down's rate; without it the
/// clock must be able to tell time-stamps, and the processor must have deadlines.
pub(super) fn init(ticks_per_second: Option<u64>) {
    match ticks_per_second {
        Some(rate) => RATE.set(rate),
        None => USES_DEADLINE.store(true, Ordering::Relaxed),
    }
    init_here();
}

/// Starts this processor's timer on the hypervisor's, which CPUID shows.
pub(super) fn init_synthetic() {
    USES_SYNTHETIC.store(true, Ordering::Relaxed);
    init_here();
}

/// Sets this processor's timer to what [`init`] found.
pub(super) fn init_here() {
    if USES_SYNTHETIC.load(Ordering::Relaxed) {
        let config = STIMER_AUTO_ENABLE | STIMER_DIRECT | u64::from(interrupts::TIMER) << STIMER_VECTOR_SHIFT;
        // SAFETY: CPUID showed the register; the vector has a handler.
        unsafe { registers::write_msr(STIMER0_CONFIG, config) };
        return;
    }
    if USES_DEADLINE.load(Ordering::Relaxed) {
        apic::timer_tsc_deadline(interrupts::TIMER);
    } else {
        apic::timer_one_shot(interrupts::TIMER);
    }
}

/// Which kind is in use, for people.
pub(super) fn kind() -> &'static str {
    if USES_SYNTHETIC.load(Ordering::Relaxed) {
        return "hyper-v synthetic timer";
    }
    match (USES_DEADLINE.load(Ordering::Relaxed), apic::kind()) {
        (true, "x2apic") => "tsc-deadline (x2apic)",
        (true, _) => "tsc-deadline (xapic)",
        (false, "x2apic") => "one-shot (x2apic)",
        (false, _) => "one-shot (xapic)",
    }
}

/// `Platform::set_alarm`. Interrupts are off.
pub(super) fn set_alarm(at: Option<u64>) {
    TIMES[percpu::id()].set_alarm(at);
    arm();
}

/// `Platform::kick_at`. Interrupts are off.
pub(super) fn kick_at(at: u64) {
    TIMES[percpu::id()].set_kick(at);
    arm();
}

/// Arms this processor's timer for what comes first. Interrupts are off.
pub(super) fn arm() {
    let at = TIMES[percpu::id()].earliest().min(watchdog::next_look());
    if USES_SYNTHETIC.load(Ordering::Relaxed) {
        // Zero stops it; a time that has passed fires at once.
        let count = if at == NEVER { 0 } else { clock::to_reference_units(at).max(1) };
        // SAFETY: CPUID showed the register; the vector has a handler.
        unsafe { registers::write_msr(STIMER0_COUNT, count) };
        return;
    }
    if USES_DEADLINE.load(Ordering::Relaxed) {
        // Zero would disarm: a time that has passed is a stamp that has passed too.
        let stamp = if at == NEVER { 0 } else { clock::to_tsc(at).max(1) };
        // SAFETY: CPUID showed the register; the vector has a handler.
        unsafe { registers::write_msr(TSC_DEADLINE, stamp) };
        return;
    }
    apic::timer_start(countdown::count(&RATE, at, clock::nanoseconds()));
}

/// The timer went off. What is due is disarmed. Interrupts are off.
pub(super) fn expired() -> Expired {
    watchdog::look();
    TIMES[percpu::id()].expired(clock::nanoseconds(), arm)
}
