//! What tests of drivers share: whoever submits to a driver, and what came back. From any test, in any context that its parts name.

pub mod allocations;
mod commands;
mod requests;

pub use commands::{
    Answer, Collector, NOTHING, READ_10, TEST_UNIT_READY, at, command, end, go, read10, ready, with_data,
};
pub use requests::{Done, Sink, buffer, bytes, one, pieces, read, write};

use undercroft_hal::{Task, cpu};

/// Lets everything that is pending happen.
pub fn settle(task: &Task) {
    for _ in 0..3000 {
        task.run_pending();
        cpu::relax();
    }
}

/// The message of the panic of `f`: what a check says of a broken twin.
///
/// # Panics
/// If `f` does not: the hazard goes unseen.
pub fn says(f: impl FnOnce()) -> String {
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).expect_err("the hazard goes unseen");
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast_ref::<&str>().map_or_else(String::new, |text| (*text).into()),
    }
}
