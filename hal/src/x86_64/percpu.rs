//! Per-processor data of the platform, reached through the GS base.
//!
//! Contexts: all. The boot processor's entry is in place before the first lock is taken.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::registers;
use crate::cpu::MAX_CPUS;

/// MSR of the GS segment's base.
const GS_BASE: u32 = 0xC000_0101;

/// What a processor finds at its GS base.
#[repr(C)]
struct PerCpu {
    /// Our processor number. Must stay first: `id` reads it by offset.
    id: u32,
    apic_id: AtomicU32,
    /// End of the stack that bottom halves run on. Must stay at [`BOTTOM_HALF_STACK`].
    bottom_half_stack: AtomicU64,
}

/// Offset of the bottom halves' stack from the GS base, for the vectors' code.
pub(super) const BOTTOM_HALF_STACK: usize = 8;
const _: () = assert!(core::mem::offset_of!(PerCpu, bottom_half_stack) == BOTTOM_HALF_STACK);

static CPUS: [PerCpu; MAX_CPUS] = {
    let mut cpus =
        [const { PerCpu { id: 0, apic_id: AtomicU32::new(0), bottom_half_stack: AtomicU64::new(0) } }; MAX_CPUS];
    let mut index = 0;
    while index < MAX_CPUS {
        cpus[index].id = index as u32;
        index += 1;
    }
    cpus
};

/// Processors that run.
static COUNT: AtomicUsize = AtomicUsize::new(1);

/// Makes this processor number `id`.
///
/// # Panics
/// If `id` is [`MAX_CPUS`] or more.
pub(super) fn adopt(id: usize) {
    let base = (&raw const CPUS[id]).expose_provenance() as u64;
    // SAFETY: the register exists on every long-mode processor and nothing else uses GS; the base is a static.
    unsafe { registers::write_msr(GS_BASE, base) };
}

/// Notes this processor's APIC id.
pub(super) fn set_apic_id(apic_id: u32) {
    CPUS[id()].apic_id.store(apic_id, Ordering::Relaxed);
}

/// Returns this processor's number.
#[inline(always)]
pub(super) fn id() -> usize {
    let id: u32;
    // SAFETY: `adopt` pointed GS at a `PerCpu` whose first field is `id`, before anything calls this.
    unsafe { asm!("mov {:e}, gs:[0]", out(reg) id, options(nostack, preserves_flags, readonly)) };
    id as usize
}

/// Returns the APIC id of processor `cpu`.
///
/// # Panics
/// If `cpu` is [`MAX_CPUS`] or more.
pub(super) fn apic_id(cpu: usize) -> u32 {
    CPUS[cpu].apic_id.load(Ordering::Relaxed)
}

/// Notes where processor `cpu` runs bottom halves, before it takes its first interrupt.
pub(super) fn set_bottom_half_stack(cpu: usize, top: u64) {
    CPUS[cpu].bottom_half_stack.store(top, Ordering::Relaxed);
}

/// Notes how many processors run, by the boot code once.
pub(super) fn set_count(count: usize) {
    COUNT.store(count, Ordering::Release);
}

/// Returns how many processors run.
pub(super) fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}
