//! The heap's reserve is no way round the rule that a hard interrupt allocates nothing.
use undercroft_hal::{HardIrq, heap};

fn handler(cx: &HardIrq) {
    heap::write_back(cx, |_| ());
}

fn main() {}
