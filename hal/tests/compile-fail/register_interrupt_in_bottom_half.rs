//! Registering an interrupt allocates tables and talks to the platform: task context.
use undercroft_hal::BottomHalf;
use undercroft_hal::irq::{self, Handled};

fn bottom_half(cx: &BottomHalf) {
    let _ = irq::message(cx, 0, |_| Handled::No);
}

fn main() {}
