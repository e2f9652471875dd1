//! Processor registers: flags, control registers, model-specific registers, CPUID, time-stamp counter.
//!
//! Contexts: all.

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, CpuidResult};

/// The interrupt flag (IF) in RFLAGS.
const INTERRUPT_FLAG: u64 = 1 << 9;

/// Returns RFLAGS.
#[inline(always)]
pub(super) fn flags() -> u64 {
    let flags;
    // SAFETY: pushes and pops one word of this stack.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags)) };
    flags
}

/// Returns whether maskable interrupts are on.
#[inline(always)]
pub(super) fn interrupts_on() -> bool {
    flags() & INTERRUPT_FLAG != 0
}

/// Masks interrupts on this processor.
#[inline(always)]
pub(super) fn interrupts_disable() {
    // SAFETY: masking interrupts breaks no memory; not `nomem`, so that it orders memory accesses around it.
    unsafe { asm!("cli", options(nostack)) };
}

/// Unmasks interrupts on this processor.
#[inline(always)]
pub(super) fn interrupts_enable() {
    // SAFETY: the handlers of every vector are in place before the first call; not `nomem`, as above.
    unsafe { asm!("sti", options(nostack)) };
}

/// Interrupts off while it lives; restores what was.
pub(super) struct SavedInterrupts {
    were_on: bool,
}

impl SavedInterrupts {
    /// Masks interrupts and remembers whether they were on.
    pub(super) fn disable() -> Self {
        let were_on = interrupts_on();
        interrupts_disable();
        Self { were_on }
    }
}

impl Drop for SavedInterrupts {
    fn drop(&mut self) {
        if self.were_on {
            interrupts_enable();
        }
    }
}

/// Stops the processor until an interrupt that is already allowed, or one that this call allows, arrives.
///
/// `sti; hlt` is one step: an interrupt that was pending before cannot slip in between and leave us asleep.
#[inline(always)]
pub(super) fn enable_and_halt() {
    // SAFETY: as `interrupts_enable`; `hlt` resumes after the next interrupt.
    unsafe { asm!("sti", "hlt", options(nostack)) };
}

/// Stops this processor for good.
pub(super) fn halt_forever() -> ! {
    loop {
        // SAFETY: nothing runs here again, except non-maskable handlers.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Reads a model-specific register.
///
/// # Safety
/// The register must exist on this processor; reading one that does not raises a general protection fault.
#[inline(always)]
pub(super) unsafe fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller says that the register exists; reading touches no memory.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The register must exist and the value must not break the running program (page tables, entry points).
#[inline(always)]
pub(super) unsafe fn write_msr(register: u32, value: u64) {
    // SAFETY: the caller vouches for register and value. Not `nomem`: earlier stores stay before it.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nostack, preserves_flags))
    };
}

/// Returns whether a hypervisor says that this processor is a virtual one.
pub(super) fn is_virtual() -> bool {
    cpuid(1, 0).ecx & 1 << 31 != 0
}

/// Executes CPUID. Leaves beyond the processor's highest return zeros or the highest leaf's data: check first.
pub(super) fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// Reads the time-stamp counter, not before earlier loads have finished.
#[inline(always)]
pub(super) fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter. Not `nomem`, so that the compiler keeps it in place among memory accesses.
    unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nostack, preserves_flags)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Returns the address that the last page fault was about (CR2).
pub(super) fn fault_address() -> u64 {
    let address;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}

/// Resets the processor the hard way: an exception without a descriptor table.
pub(super) fn triple_fault() -> ! {
    #[repr(C, packed)]
    struct Pointer {
        limit: u16,
        base: u64,
    }
    let none = Pointer { limit: 0, base: 0 };
    // SAFETY: nothing runs after it; a machine that ignores the shutdown stays halted below.
    unsafe { asm!("lidt [{}]", "int3", in(reg) &raw const none, options(nostack)) };
    halt_forever()
}

/// Lets the processor report broken hardware by the machine-check exception, where it can.
pub(super) fn enable_machine_checks() {
    const MACHINE_CHECK_ENABLE: u64 = 1 << 6;
    if cpuid(1, 0).edx & 1 << 7 == 0 {
        return;
    }
    // SAFETY: CPUID shows the feature; the exception's handler and stack are in place, and no other bit changes.
    unsafe {
        asm!("mov {0}, cr4", "or {0}, {1}", "mov cr4, {0}", out(reg) _, const MACHINE_CHECK_ENABLE, options(nostack))
    };
}
