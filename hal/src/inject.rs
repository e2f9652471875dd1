//! Interrupt injection for tests: runs a "handler" on the same thread in the middle of an operation, at its k-th step.
//!
//! What a multi-threaded test cannot show is an interrupt on the *same* CPU: the interrupted code does not go on until the handler
//! has returned. Here the handler is called from inside [`crate::atomic::step`], so it has exactly that property.

use std::boxed::Box;
use std::cell::{Cell, RefCell};

type Handler = Box<dyn FnOnce()>;

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    static HANDLER: RefCell<Option<Handler>> = const { RefCell::new(None) };
}

/// One step of the operation under test.
pub(crate) fn step() {
    let left = LEFT.get();
    if left == usize::MAX {
        return;
    }
    if left > 0 {
        LEFT.set(left - 1);
        return;
    }
    LEFT.set(usize::MAX);
    if let Some(handler) = HANDLER.take() {
        handler();
    }
}

/// Runs `operation` with `handler` striking at its step number `k`. `false` if the operation has no such step: then `handler` did not run.
pub(crate) fn interrupted_at(k: usize, handler: impl FnOnce() + 'static, operation: impl FnOnce()) -> bool {
    HANDLER.replace(Some(Box::new(handler)));
    LEFT.set(k);
    operation();
    LEFT.set(usize::MAX);
    HANDLER.take().is_none()
}
