//! T-12: a handler in a hard interrupt takes a lock that the code it interrupted may hold.
use std::sync::Arc;
use undercroft_hal::HardIrq;
use undercroft_hal::sync::{Rank, SpinLock};
use undercroft_timer::Guarded;

fn main() {
    let lock = Arc::new(SpinLock::new(Rank::DEVICE, 0));
    let _ = Guarded::<SpinLock<i32>, HardIrq>::new(0, lock, |_, data, _| *data += 1);
}
