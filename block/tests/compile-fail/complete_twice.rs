//! A request is finished once: finishing takes it.
use undercroft_block::InFlight;
use undercroft_hal::BottomHalf;

fn service(cx: &BottomHalf, request: InFlight) {
    request.finish(cx, Ok(()));
    request.finish(cx, Ok(()));
}

fn main() {}
