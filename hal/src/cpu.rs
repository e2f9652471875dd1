//! CPUs: their indices and how many there may be. Any context.

use crate::platform::seam;

/// The most CPUs that one system supports.
pub const MAX_CPUS: usize = 64;

/// The index of the calling CPU. Stable only while the caller cannot migrate: with interrupts off, in a bottom half
/// or hard interrupt, or anywhere on a platform whose tasks stay on their CPU (both that come with this crate).
#[inline]
pub fn current() -> usize {
    seam::cpu()
}

/// How many CPUs take part (at least 1, at most [`MAX_CPUS`]).
#[inline]
pub fn count() -> usize {
    seam::cpu_count()
}

/// Tells the CPU that the caller is spinning on memory.
#[inline]
pub fn relax() {
    seam::relax();
}

/// Interrupts `cpu` (which may be the caller's own): its kick handler runs, then its bottom halves. None is interrupted if there is no
/// such CPU. Any context.
#[inline]
pub fn kick(cpu: usize) {
    if cpu < count() {
        seam::kick(cpu);
    }
}

/// Has the processor fetch the line of its cache that an address lies in, where it can be asked to. Only speed depends on it: the address may be any,
/// also of memory that is not there any more.
#[inline(always)]
pub fn prefetch(addr: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch neither faults nor changes anything that a program can see, whatever the address.
    unsafe {
        core::arch::asm!("prefetcht0 [{}]", in(reg) addr, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = addr;
}

/// Runs `f` with interrupts off on this CPU.
#[inline]
pub fn without_interrupts<R>(f: impl FnOnce() -> R) -> R {
    let _guard = IrqGuard::new();
    f()
}

/// Keeps interrupts off on this CPU while it lives; guards nest, and must be dropped in reverse order.
pub struct IrqGuard {
    were_on: bool,
    _here: core::marker::PhantomData<*mut ()>,
}

impl IrqGuard {
    /// Turns interrupts off.
    #[inline]
    pub fn new() -> Self {
        Self { were_on: seam::irq_save(), _here: core::marker::PhantomData }
    }
}

impl Default for IrqGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for IrqGuard {
    #[inline]
    fn drop(&mut self) {
        seam::irq_restore(self.were_on);
    }
}
