//! A callout that was closed is gone.
use undercroft_hal::{Duration, Task};
use undercroft_timer::Callout;

fn close(callout: Callout, cx: &Task) {
    let _ = callout.close(cx);
    let _ = callout.start(Duration::ZERO);
}

fn main() {}
