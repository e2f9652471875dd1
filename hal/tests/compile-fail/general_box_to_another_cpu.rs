//! A-GEN-02: a box of the general heap cannot be sent to another CPU, which would free it there.
use undercroft_hal::Task;
use undercroft_hal::heap::General;

fn task(cx: &Task, heap: &General) {
    if let Ok(kept) = heap.try_box(cx, 1) {
        std::thread::scope(|scope| {
            scope.spawn(move || drop(kept));
        });
    }
}

fn main() {}
