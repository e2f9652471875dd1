//! A-GEN-04: nor can a task, so that no completion ever runs inside `submit`.
use undercroft_block::InFlight;
use undercroft_hal::Task;

fn task(cx: &Task, request: InFlight) {
    request.finish(cx, Ok(()));
}

fn main() {}
