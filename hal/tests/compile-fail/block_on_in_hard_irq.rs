//! Only a task may block on a future.
use undercroft_hal::HardIrq;

fn handler(cx: &HardIrq) {
    cx.block_on(async {});
}

fn main() {}
