//! The monotonic clock: nanoseconds since the image's first instruction.
//!
//! A hypervisor's own clock where it offers one (kvmclock, Hyper-V's reference page), else the time-stamp counter at
//! the rate that CPUID tells, else at a rate measured against the HPET, the ACPI timer or the PIT.
//!
//! Contexts: all; reading takes no lock. Before [`init`] the clock stands at zero.

mod hyperv;
mod hypervisor;
mod kvm;
mod reference;

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

pub(super) use hypervisor::{name as hypervisor_name, xen_leaves};

use super::{apic, entry, percpu, registers, timer};
use crate::clock::scale::Scale;
use crate::cpu::MAX_CPUS;
use crate::firmware::acpi::Tables;

/// What tells the time.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Source {
    None = 0,
    Tsc = 1,
    Kvm = 2,
    HyperV = 3,
}

static SOURCE: AtomicU8 = AtomicU8::new(Source::None as u8);
/// From time-stamps since the entry to nanoseconds.
static TSC: Scale = Scale::new();
/// What a hypervisor's clock showed at the entry.
static EPOCH: AtomicU64 = AtomicU64::new(0);
/// The latest time that was told, for the sources that may step back between processors.
static LATEST: AtomicU64 = AtomicU64::new(0);
/// Where the rate came from, as an index of [`NAMES`].
static NAME: AtomicU8 = AtomicU8::new(0);

const NAMES: [&str; 9] = [
    "none",
    "kvmclock",
    "hyper-v reference time",
    "tsc (rate from cpuid)",
    "tsc (measured against hpet)",
    "tsc (measured against the acpi timer)",
    "tsc (measured against the pit)",
    "tsc (nominal rate)",
    "tsc (measured against the local timer)",
];

/// The latest time-stamp that any processor saw while they were compared.
static LATEST_STAMP: AtomicU64 = AtomicU64::new(0);
/// How far each was seen to be behind: what is added to its stamps.
static BEHIND: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// One was behind: the correction is a lower bound, so the clock must keep itself from stepping back.
static APART: AtomicBool = AtomicBool::new(false);
/// Comparisons that each processor makes at least.
pub(super) const COMPARISONS: u32 = 100;

/// This processor's time-stamp, brought up to the latest processor's.
#[inline]
fn stamp() -> u64 {
    #[cfg(feature = "provoke")]
    let raw = registers::tsc().saturating_sub(super::provoke::skew());
    #[cfg(not(feature = "provoke"))]
    let raw = registers::tsc();
    if APART.load(Ordering::Relaxed) { raw + BEHIND[percpu::id()].load(Ordering::Relaxed) } else { raw }
}

/// Looks whether this processor's time-stamps are behind another's. All do so at the same time while they come up.
pub(super) fn compare_stamps() {
    #[cfg(feature = "provoke")]
    if super::provoke::is_naive() {
        return;
    }
    let seen = LATEST_STAMP.load(Ordering::SeqCst);
    let now = stamp();
    if now < seen {
        BEHIND[percpu::id()].fetch_add(seen - now, Ordering::Relaxed);
        APART.store(true, Ordering::Relaxed);
    }
    LATEST_STAMP.fetch_max(now, Ordering::SeqCst);
}

/// By how many ticks the time-stamps of processors were seen to differ.
pub(super) fn apart() -> u64 {
    BEHIND.iter().map(|behind| behind.load(Ordering::Relaxed)).max().unwrap_or(0)
}

/// Nanoseconds since the image's entry.
#[inline]
pub(super) fn nanoseconds() -> u64 {
    let source = SOURCE.load(Ordering::Relaxed);
    if source == Source::Tsc as u8 {
        let stamps = stamp().saturating_sub(entry::tsc_at_entry());
        let now = TSC.nanoseconds(stamps);
        if !APART.load(Ordering::Relaxed) {
            return now;
        }
        // The time is no earlier than the latest that any of them told.
        return LATEST.fetch_max(now, Ordering::Relaxed).max(now);
    }
    let raw = match source {
        s if s == Source::Kvm as u8 => kvm::nanoseconds(),
        s if s == Source::HyperV as u8 => hyperv::nanoseconds(),
        _ => return 0,
    };
    let now = raw.saturating_sub(EPOCH.load(Ordering::Relaxed));
    LATEST.fetch_max(now, Ordering::Relaxed).max(now)
}

/// The time-stamp that belongs to a time of this clock; for times around now.
pub(super) fn to_tsc(at: u64) -> u64 {
    // From here, not from the entry: a hypervisor's clock and the time-stamps may drift apart over the hours.
    let now = nanoseconds();
    registers::tsc().saturating_add(TSC.ticks(at.saturating_sub(now)))
}

/// The reference time, in the hypervisor's units, at which a time of this clock has come.
pub(super) fn to_reference_units(at: u64) -> u64 {
    at.saturating_add(EPOCH.load(Ordering::Relaxed)).div_ceil(crate::hyperv::time::UNIT)
}

/// Sets up another processor's part of the clock, and its timer.
pub(super) fn init_here() {
    if SOURCE.load(Ordering::Relaxed) == Source::Kvm as u8 {
        kvm::init();
    }
    timer::init_here();
}

/// What tells the time, for people.
pub(super) fn kind() -> &'static str {
    NAMES[usize::from(NAME.load(Ordering::Relaxed)) % NAMES.len()]
}

/// There is nothing to tell the time by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoClock;

/// Chooses the clock and sets up this processor's timer. The local APIC is on; interrupts are off.
pub(super) fn init(tables: Option<&Tables>) -> Result<(), NoClock> {
    let deadline = timer::has_tsc_deadline();
    let told = hypervisor::tsc_rate();
    let (source, name) = if kvm::init() {
        (Source::Kvm, 1)
    } else if hyperv::init() {
        (Source::HyperV, 2)
    } else {
        (Source::Tsc, 3)
    };

    // The rates of the time-stamp counter and of the timer: told, or measured together.
    let told_by_clock = if source == Source::Kvm { kvm::tsc_rate() } else { None };
    let tsc_rate = told_by_clock.or(told.tsc);
    let timer_rate = if deadline && tsc_rate.is_some() { None } else { told.timer };
    let mut name = name;
    match (tsc_rate, timer_rate) {
        (Some(rate), _) if source == Source::HyperV && hyperv::has_timers() => {
            TSC.set(rate);
            timer::init_synthetic();
        }
        (Some(rate), _) if deadline => {
            TSC.set(rate);
            timer::init(None);
        }
        (Some(rate), Some(timer_rate)) => {
            TSC.set(rate);
            timer::init(Some(timer_rate));
        }
        _ => {
            let measured = reference::measure(tables, told.timer);
            let (rate, measured_name) = match (tsc_rate, &measured) {
                (Some(rate), _) => (rate, 3),
                (None, Some(measured)) => (measured.tsc, measured.against),
                (None, None) => (hypervisor::nominal_rate().ok_or(NoClock)?, 7),
            };
            TSC.set(rate);
            if source == Source::Tsc {
                name = measured_name;
            }
            timer::init(if deadline { None } else { Some(measured.ok_or(NoClock)?.timer) });
        }
    }

    // Zero is the entry, on every source.
    let since_entry = TSC.nanoseconds(registers::tsc().wrapping_sub(entry::tsc_at_entry()));
    let raw = match source {
        Source::Kvm => kvm::nanoseconds(),
        Source::HyperV => hyperv::nanoseconds(),
        _ => since_entry,
    };
    EPOCH.store(raw.saturating_sub(since_entry), Ordering::Relaxed);
    NAME.store(name, Ordering::Relaxed);
    SOURCE.store(source as u8, Ordering::Relaxed);
    Ok(())
}

/// Counts the timer down from the top, masked, for a measurement.
fn timer_for_measurement() -> u32 {
    apic::timer_start(u32::MAX);
    apic::timer_left()
}
