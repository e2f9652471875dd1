//! A token is proof about one CPU: it cannot be sent to another.
use undercroft_hal::Task;

fn task(cx: &Task) {
    std::thread::scope(|scope| {
        scope.spawn(|| cx.run_pending());
    });
}

fn main() {}
