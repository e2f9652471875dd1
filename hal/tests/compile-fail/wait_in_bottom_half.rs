//! Only a task may wait.
use undercroft_hal::BottomHalf;

fn bottom_half(cx: &BottomHalf) {
    cx.wait_until(|| true);
}

fn main() {}
