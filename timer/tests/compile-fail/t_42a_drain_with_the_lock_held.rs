//! T-42a: who waits for a lock-bound handler does not hold its lock.
use undercroft_hal::Task;
use undercroft_hal::sync::SpinLock;
use undercroft_timer::Guarded;

fn drain(mut guarded: Guarded<SpinLock<i32>>, cx: &Task) {
    let guard = guarded.bound_to().lock(cx);
    let _ = guarded.drain(cx);
    drop(guard);
}

fn main() {}
