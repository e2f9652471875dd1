//! One alarm per processor, on the local APIC's timer.
//!
//! The timer serves the alarm of `hal`, its kick at a time and the watchdog's look: it is armed for the earliest. It never
//! fires the alarm early: a count-down that ends too soon is started again.
//!
//! Source: Intel SDM volume 3, 12.5.4.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{apic, clock, interrupts, percpu, registers, watchdog};
use crate::cpu::MAX_CPUS;

/// MSR of the deadline in TSC-deadline mode.
const TSC_DEADLINE: u32 = 0x6E0;
const NEVER: u64 = u64::MAX;

static ALARMS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(NEVER) }; MAX_CPUS];
static KICKS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(NEVER) }; MAX_CPUS];
static USES_DEADLINE: AtomicBool = AtomicBool::new(false);
/// Timer ticks per nanosecond, as a 32.32 fixed-point number.
static TICKS_PER_NANOSECOND: AtomicU64 = AtomicU64::new(1 << 32);

/// Whether the processor's timer can wait for a time-stamp.
pub(super) fn has_tsc_deadline() -> bool {
    registers::cpuid(1, 0).ecx & 1 << 24 != 0
}

/// Starts this processor's timer, with nothing armed. `ticks_per_second` is the count-down's rate; without it the
/// clock must be able to tell time-stamps, and the processor must have deadlines.
pub(super) fn init(ticks_per_second: Option<u64>) {
    match ticks_per_second {
        Some(rate) => {
            let ratio = (u128::from(rate) << 32) / 1_000_000_000;
            TICKS_PER_NANOSECOND.store(u64::try_from(ratio).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
        }
        None => USES_DEADLINE.store(true, Ordering::Relaxed),
    }
    init_here();
}

/// Sets this processor's timer to what [`init`] found.
pub(super) fn init_here() {
    if USES_DEADLINE.load(Ordering::Relaxed) {
        apic::timer_tsc_deadline(interrupts::TIMER);
    } else {
        apic::timer_one_shot(interrupts::TIMER);
    }
}

/// Which kind is in use, for people.
pub(super) fn kind() -> &'static str {
    match (USES_DEADLINE.load(Ordering::Relaxed), apic::kind()) {
        (true, "x2apic") => "tsc-deadline (x2apic)",
        (true, _) => "tsc-deadline (xapic)",
        (false, "x2apic") => "one-shot (x2apic)",
        (false, _) => "one-shot (xapic)",
    }
}

/// `Platform::set_alarm`. Interrupts are off.
pub(super) fn set_alarm(at: Option<u64>) {
    ALARMS[percpu::id()].store(at.unwrap_or(NEVER), Ordering::Relaxed);
    arm();
}

/// `Platform::kick_at`. Interrupts are off.
pub(super) fn kick_at(at: u64) {
    KICKS[percpu::id()].store(at, Ordering::Relaxed);
    arm();
}

/// Arms this processor's timer for what comes first. Interrupts are off.
pub(super) fn arm() {
    let cpu = percpu::id();
    let (alarm, kick) = (ALARMS[cpu].load(Ordering::Relaxed), KICKS[cpu].load(Ordering::Relaxed));
    let at = alarm.min(kick).min(watchdog::next_look());
    if USES_DEADLINE.load(Ordering::Relaxed) {
        // Zero would disarm: a time that has passed is a stamp that has passed too.
        let stamp = if at == NEVER { 0 } else { clock::to_tsc(at).max(1) };
        // SAFETY: CPUID showed the register; the vector has a handler.
        unsafe { registers::write_msr(TSC_DEADLINE, stamp) };
        return;
    }
    let count = if at == NEVER {
        0
    } else {
        let left = at.saturating_sub(clock::nanoseconds());
        let ticks = (u128::from(left) * u128::from(TICKS_PER_NANOSECOND.load(Ordering::Relaxed))) >> 32;
        u32::try_from(ticks).unwrap_or(u32::MAX).max(1)
    };
    apic::timer_start(count);
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expired {
    pub(super) alarm: bool,
    pub(super) kick: bool,
}

/// The timer went off. What is due is disarmed. Interrupts are off.
pub(super) fn expired() -> Expired {
    watchdog::look();
    let now = clock::nanoseconds();
    let take = |time: &AtomicU64| {
        let due = time.load(Ordering::Relaxed) <= now;
        if due {
            time.store(NEVER, Ordering::Relaxed);
        }
        due
    };
    let cpu = percpu::id();
    let expired = Expired { alarm: take(&ALARMS[cpu]), kick: take(&KICKS[cpu]) };
    arm();
    expired
}
