//! There are three contexts; a program cannot invent a fourth.
use undercroft_hal::Context;
use undercroft_hal::context::Kind;

struct Mine;

impl Context for Mine {
    const KIND: Kind = Kind::Task;
}

fn main() {}
