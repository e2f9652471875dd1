//! T-08: a handler, at any level, cannot wait: not for itself, not for another.
use std::sync::Arc;
use undercroft_hal::{BottomHalf, HardIrq, Task};
use undercroft_timer::Callout;

fn main() {
    let other: Arc<Callout> = Arc::new(Callout::new(0, |_, _| ()));
    let (a, b, c) = (other.clone(), other.clone(), other);
    let _ = Callout::<HardIrq>::new(0, move |cx, _| drop(a.drain(cx)));
    let _ = Callout::<BottomHalf>::new(0, move |cx, _| drop(b.drain(cx)));
    let _ = Callout::<Task>::new(0, move |cx, _| drop(c.drain(cx)));
}
