//! Hyper-V's reference time: a page by which time-stamps become 100 ns units, or a register that tells them.
//!
//! Source: Hyper-V Top Level Functional Specification 6.0b, 12.7 "Partition Reference Time Enlightenment".

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::hypervisor;
use crate::x86_64::registers;

/// Feature leaf and its bits: the counter register, and the page.
const FEATURES: u32 = 0x4000_0003;
const HAS_COUNTER: u32 = 1 << 1;
const HAS_PAGE: u32 = 1 << 9;
const REFERENCE_COUNTER: u32 = 0x4000_0020;
const REFERENCE_TSC: u32 = 0x4000_0021;

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
    let offered = hypervisor::leaves(b"Microsoft Hv") == Some(0x4000_0000)
        && registers::cpuid(FEATURES, 0).eax & (HAS_COUNTER | HAS_PAGE) == HAS_COUNTER | HAS_PAGE;
    if offered {
        let page = (&raw const PAGE).expose_provenance() as u64;
        // SAFETY: CPUID shows the register. The host writes the page from now on; all its fields are atomics.
        unsafe { registers::write_msr(REFERENCE_TSC, page | 1) };
    }
    offered
}

/// The partition's nanoseconds.
pub(super) fn nanoseconds() -> u64 {
    loop {
        let sequence = PAGE.sequence.load(Ordering::Acquire);
        if sequence == 0 {
            // SAFETY: CPUID showed the register.
            return unsafe { registers::read_msr(REFERENCE_COUNTER) }.wrapping_mul(100);
        }
        let scale = PAGE.scale.load(Ordering::Relaxed);
        let offset = PAGE.offset.load(Ordering::Relaxed);
        let stamp = registers::tsc();
        fence(Ordering::Acquire);
        if PAGE.sequence.load(Ordering::Relaxed) == sequence {
            let units = ((u128::from(stamp) * u128::from(scale)) >> 64) as u64;
            return units.wrapping_add(offset).wrapping_mul(100);
        }
        core::hint::spin_loop();
    }
}
