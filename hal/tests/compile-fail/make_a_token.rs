//! Only the dispatcher makes tokens.
use undercroft_hal::Task;

fn main() {
    let _ = unsafe { Task::new() };
}
