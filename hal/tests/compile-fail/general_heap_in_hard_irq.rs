//! A-GEN-02, A-GEN-03: a hard interrupt handler allocates nothing: the general heap asks for the task's token.
use undercroft_hal::HardIrq;
use undercroft_hal::heap::General;

fn handler(cx: &HardIrq, heap: &General) {
    let _ = heap.try_box(cx, 1);
}

fn main() {}
