//! A guard restores the interrupt state of the CPU that took it: it cannot be sent away.
use undercroft_hal::sync::{IrqSpinLock, Rank};

fn main() {
    let lock = IrqSpinLock::new(Rank::QUEUE, 0);
    let guard = lock.lock();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(guard));
    });
}
