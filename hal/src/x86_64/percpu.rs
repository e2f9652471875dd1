//! Per-processor data of the platform, reached through the GS base.
//!
//! Contexts: all. The boot processor's entry is in place before the first lock is taken.

use core::arch::asm;

use super::registers;

/// Processors that the platform can hold.
pub(super) const MAX_CPUS: usize = 64;

/// MSR of the GS segment's base.
const GS_BASE: u32 = 0xC000_0101;

/// What a processor finds at its GS base.
#[repr(C)]
struct PerCpu {
    /// Our processor number. Must stay first: `id` reads it by offset.
    id: u32,
}

static CPUS: [PerCpu; MAX_CPUS] = {
    let mut cpus = [const { PerCpu { id: 0 } }; MAX_CPUS];
    let mut index = 0;
    while index < MAX_CPUS {
        cpus[index].id = index as u32;
        index += 1;
    }
    cpus
};

/// Makes this processor number `id`.
///
/// # Panics
/// If `id` is [`MAX_CPUS`] or more.
pub(super) fn adopt(id: usize) {
    let base = (&raw const CPUS[id]).addr() as u64;
    // SAFETY: the register exists on every long-mode processor and nothing else uses GS; the base is a static.
    unsafe { registers::write_msr(GS_BASE, base) };
}

/// Returns this processor's number.
#[inline(always)]
pub(super) fn id() -> usize {
    let id: u32;
    // SAFETY: `adopt` pointed GS at a `PerCpu` whose first field is `id`, before anything calls this.
    unsafe { asm!("mov {:e}, gs:[0]", out(reg) id, options(nostack, preserves_flags, readonly)) };
    id as usize
}
