//! A-GEN-02: the general heap is for task context, and the token is the proof.
use undercroft_hal::heap::General;

fn anywhere(heap: &General) {
    let _ = heap.try_box(1);
    let _ = General::new();
}

fn main() {}
