//! Waiting for something, and not for ever. Task context.

use undercroft_hal::{BottomHalf, Instant, Task, cpu};
use undercroft_timer::{Callout, Expiry};

/// Waits until `ready` holds or the time is over, and returns whether it holds. What makes it true must be followed by an interrupt, a
/// kick or scheduled work on this CPU.
pub(crate) fn until(cx: &Task, deadline: Instant, mut ready: impl FnMut() -> bool) -> bool {
    if ready() {
        return true;
    }
    // Its run is what ends the halt.
    let alarm = Callout::<BottomHalf>::new(cpu::current(), |_: &BottomHalf, _: &Expiry| {});
    let is_armed = alarm.start_at(deadline).is_ok();
    let mut held = false;
    cx.wait_until(|| {
        held = ready();
        held || !is_armed || Instant::now() >= deadline
    });
    held
}
