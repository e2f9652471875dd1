//! A-GEN-02: taking a value out of its box frees the block, which asks for the task's token.
use undercroft_hal::BottomHalf;
use undercroft_hal::heap::GeneralBox;

fn service(cx: &BottomHalf, kept: GeneralBox<'_, u32>) -> u32 {
    kept.into_inner(cx)
}

fn main() {}
