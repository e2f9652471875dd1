//! A token is lent to its handler and cannot outlive it.
use std::cell::Cell;
use undercroft_hal::BottomHalf;
use undercroft_hal::work::{Turn, Work};

thread_local! {
    static KEPT: Cell<Option<&'static BottomHalf>> = const { Cell::new(None) };
}

fn main() {
    let _ = Work::new(0, |cx: &BottomHalf| {
        KEPT.set(Some(cx));
        Turn::Done
    });
}
