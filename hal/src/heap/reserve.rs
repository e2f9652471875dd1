//! Who may use a heap's reserve: write-back, which must be able to free memory when there is none.
//!
//! A page cache that cannot allocate cannot write, and what it does not write it cannot free. Bottom half and task.

use crate::context::NotHardIrq;
use crate::system;

/// Runs `f` with the reserve open to its allocations: they use it once ordinary memory is gone. For work that frees memory, and only as much
/// of it as that takes: `f` does not wait, and what it allocates is freed soon. Interrupts and bottom halves that strike meanwhile have no
/// part in it.
pub fn write_back<C: NotHardIrq, R>(_cx: &C, f: impl FnOnce(&C) -> R) -> R {
    /// Closes it again, also when `f` panics.
    struct Close(u8);
    impl Drop for Close {
        fn drop(&mut self) {
            system::with_cpu(|cpu| cpu.set_reserve_open(self.0));
        }
    }
    let before = system::with_cpu(|cpu| {
        let open = cpu.reserve_open();
        cpu.set_reserve_open(open | 1 << C::KIND as u8);
        open
    });
    let _close = Close(before);
    f(_cx)
}

/// Whether the calling code may use the reserve.
#[cfg(all(feature = "heap", not(any(loom, shuttle))))]
pub(crate) fn is_open() -> bool {
    system::with_cpu(|cpu| cpu.reserve_open() & 1 << cpu.kind() as u8 != 0)
}
