//! A box carries its heap in its type: it cannot outlive it.
use undercroft_hal::Task;
use undercroft_hal::heap::{General, GeneralBox};

fn task<'a>(cx: &Task) -> Option<GeneralBox<'a, u32>> {
    let heap = General::new(cx);
    heap.try_box(cx, 1).ok()
}

fn main() {}
