//! kvmclock: KVM's paravirtual clock.
//!
//! Source: Linux `Documentation/virt/kvm/x86/msr.rst` (MSR_KVM_SYSTEM_TIME_NEW) and `cpuid.rst`. The host writes a
//! page that turns a time-stamp into nanoseconds; an odd version means that it is being changed.

use core::sync::atomic::{AtomicI8, AtomicU32, AtomicU64, Ordering, fence};

use super::hypervisor;
use crate::cpu::MAX_CPUS;
use crate::x86_64::percpu;
use crate::x86_64::registers;

/// MSR that takes the page's address, with bit 0 to turn it on.
const SYSTEM_TIME_NEW: u32 = 0x4B56_4D01;
/// Feature bit: that MSR exists.
const CLOCKSOURCE2: u32 = 1 << 3;

/// `pvclock_vcpu_time_info`.
#[repr(C, align(64))]
struct Info {
    version: AtomicU32,
    _pad: u32,
    tsc: AtomicU64,
    system_time: AtomicU64,
    multiplier: AtomicU32,
    shift: AtomicI8,
    _flags: u8,
    _pad2: [u8; 2],
}

const _: () = assert!(core::mem::offset_of!(Info, shift) == 28);

static INFOS: [Info; MAX_CPUS] = [const {
    Info {
        version: AtomicU32::new(0),
        _pad: 0,
        tsc: AtomicU64::new(0),
        system_time: AtomicU64::new(0),
        multiplier: AtomicU32::new(0),
        shift: AtomicI8::new(0),
        _flags: 0,
        _pad2: [0; 2],
    }
}; MAX_CPUS];

/// Turns the clock on for this processor, where KVM offers it.
pub(super) fn init() -> bool {
    let Some(first) = hypervisor::leaves(b"KVMKVMKVM\0\0\0") else { return false };
    if registers::cpuid(first + 1, 0).eax & CLOCKSOURCE2 == 0 {
        return false;
    }
    // The image lies in physical memory where it is seen.
    let info = (&raw const INFOS[percpu::id()]).expose_provenance() as u64;
    // SAFETY: CPUID shows the register. The host writes the page from now on; all its fields are atomics.
    unsafe { registers::write_msr(SYSTEM_TIME_NEW, info | 1) };
    INFOS[percpu::id()].multiplier.load(Ordering::Relaxed) != 0
}

/// A consistent copy: stamp, time, multiplier, shift.
fn snapshot() -> (u64, u64, u32, i8) {
    let info = &INFOS[percpu::id()];
    loop {
        let before = info.version.load(Ordering::Acquire);
        let copy = (
            info.tsc.load(Ordering::Relaxed),
            info.system_time.load(Ordering::Relaxed),
            info.multiplier.load(Ordering::Relaxed),
            info.shift.load(Ordering::Relaxed),
        );
        fence(Ordering::Acquire);
        // The host changes the page only while this processor does not run, so a second try succeeds.
        if before.is_multiple_of(2) && info.version.load(Ordering::Relaxed) == before {
            return copy;
        }
        core::hint::spin_loop();
    }
}

/// The host's nanoseconds.
pub(super) fn nanoseconds() -> u64 {
    let (stamp, time, multiplier, shift) = snapshot();
    let ticks = registers::tsc().saturating_sub(stamp);
    let distance = u32::from(shift.unsigned_abs()).min(63);
    let ticks = if shift >= 0 { ticks << distance } else { ticks >> distance };
    time.wrapping_add(((u128::from(ticks) * u128::from(multiplier)) >> 32) as u64)
}

/// The rate of the time-stamp counter, by the page's own factor.
pub(super) fn tsc_rate() -> Option<u64> {
    let (_, _, multiplier, shift) = snapshot();
    let rate = (1_000_000_000u128 << 32) / u128::from(multiplier.max(1));
    let distance = u32::from(shift.unsigned_abs()).min(63);
    let rate = if shift >= 0 { rate >> distance } else { rate << distance };
    u64::try_from(rate).ok().filter(|&rate| rate != 0)
}
