//! A-GEN-02: a box of the general heap cannot go to a bottom half, which would free it there.
use undercroft_hal::Task;
use undercroft_hal::heap::General;
use undercroft_hal::work::{BottomHalfWork, Turn};

fn task(cx: &Task, heap: &'static General) {
    if let Ok(kept) = heap.try_box(cx, 1) {
        let _ = BottomHalfWork::new(0, move |_| {
            let _ = &kept;
            Turn::Done
        });
    }
}

fn main() {}
