//! T-14: an exact stop needs the lock for itself.
use undercroft_hal::Task;
use undercroft_hal::sync::SpinLock;
use undercroft_timer::Guarded;

fn stop(guarded: &Guarded<SpinLock<i32>>, lock: &SpinLock<i32>, cx: &Task) {
    let guard = lock.lock(cx);
    let _ = guarded.stop(&guard);
}

fn main() {}
