//! A request's completion runs in a bottom half: a hard interrupt handler cannot finish one.
use undercroft_block::InFlight;
use undercroft_hal::HardIrq;

fn handler(cx: &HardIrq, request: InFlight) {
    request.finish(cx, Ok(()));
}

fn main() {}
