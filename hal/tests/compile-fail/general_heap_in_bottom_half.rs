//! A-GEN-02: a bottom half can neither make a general heap nor allocate in one.
use undercroft_hal::BottomHalf;
use undercroft_hal::heap::General;

fn service(cx: &BottomHalf, heap: &General) {
    let _ = heap.try_box(cx, 1);
    let _ = General::new(cx);
}

fn main() {}
