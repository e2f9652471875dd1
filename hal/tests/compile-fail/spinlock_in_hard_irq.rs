//! A `SpinLock` is for bottom half and task: a hard interrupt handler cannot take it.
use undercroft_hal::HardIrq;
use undercroft_hal::sync::SpinLock;

fn handler(cx: &HardIrq, shared: &SpinLock<u32>) {
    let _ = shared.lock(cx);
}

fn main() {}
