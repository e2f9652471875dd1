//! Hyper-V's reference time: a page by which time-stamps become 100 ns units, or a register that tells them.
//!
//! Source: Hyper-V Top Level Functional Specification 6.0b, 12.7 "Partition Reference Time Enlightenment".

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crate::hyperv::Features;
use crate::hyperv::registers::TIME_REF_COUNT;
use crate::hyperv::registers::bare::{APIC_FREQUENCY, REFERENCE_TSC, TSC_FREQUENCY};
use crate::hyperv::time::{INVALID_SEQUENCE, UNIT, units};
use crate::x86_64::{hyperv, registers};

use super::hypervisor::Rates;

/// `HV_REFERENCE_TSC_PAGE`.
#[repr(C, align(4096))]
struct Page {
    /// Zero: not to be used now.
    sequence: AtomicU32,
    _pad: u32,
    scale: AtomicU64,
    offset: AtomicU64,
}

static PAGE: Page = Page { sequence: AtomicU32::new(0), _pad: 0, scale: AtomicU64::new(0), offset: AtomicU64::new(0) };

/// Turns the clock on, where Hyper-V (or a hypervisor that speaks its interface) offers it.
pub(super) fn init() -> bool {
    let features = hyperv::features();
    if !features.contains(Features::REFERENCE_COUNTER) {
        return false;
    }
    // Without the page its sequence stays invalid, and the register tells.
    if features.contains(Features::REFERENCE_TSC) {
        let page = (&raw const PAGE).expose_provenance() as u64;
        // SAFETY: CPUID shows the register. The host writes the page from now on; all its fields are atomics.
        unsafe { registers::write_msr(REFERENCE_TSC, page | 1) };
    }
    true
}

/// Whether synthetic timers can be the alarm.
pub(super) fn has_timers() -> bool {
    hyperv::features().contains(Features::TIMERS | Features::DIRECT_TIMERS | Features::REFERENCE_COUNTER)
}

/// The rates that the hypervisor tells.
pub(super) fn rates() -> Rates {
    if !hyperv::features().contains(Features::FREQUENCIES) {
        return Rates::default();
    }
    // SAFETY: CPUID shows both registers.
    let told = |register| Some(unsafe { registers::read_msr(register) }).filter(|&rate| rate != 0);
    Rates { tsc: told(TSC_FREQUENCY), timer: told(APIC_FREQUENCY) }
}

/// The partition's nanoseconds.
pub(super) fn nanoseconds() -> u64 {
    loop {
        let sequence = PAGE.sequence.load(Ordering::Acquire);
        if sequence == INVALID_SEQUENCE {
            // SAFETY: CPUID showed the register.
            return unsafe { registers::read_msr(TIME_REF_COUNT) }.wrapping_mul(UNIT);
        }
        let scale = PAGE.scale.load(Ordering::Relaxed);
        let offset = PAGE.offset.load(Ordering::Relaxed);
        let stamp = registers::tsc();
        fence(Ordering::Acquire);
        if PAGE.sequence.load(Ordering::Relaxed) == sequence {
            return units(stamp, scale, offset).wrapping_mul(UNIT);
        }
        core::hint::spin_loop();
    }
}
