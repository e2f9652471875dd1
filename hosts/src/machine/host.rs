//! Whose code runs: the guest's, or a device's on the other side. A test that forbids the guest something asks here.

use std::cell::Cell;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Whether a device or the interrupt controller of this thread's machine is at work: what is allocated now is the model's business, not the
/// driver's.
pub fn host_is_working() -> bool {
    DEPTH.try_with(Cell::get).is_ok_and(|depth| depth > 0)
}

/// The other side works while this lives.
pub(super) struct Working;

impl Working {
    pub(super) fn begin() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}
