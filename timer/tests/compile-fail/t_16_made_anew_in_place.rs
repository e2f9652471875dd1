//! T-16: a callout cannot be copied, taken apart or made anew in its place; only replaced, which closes it.
use undercroft_timer::Callout;

fn again(callout: &Callout) -> Callout {
    Callout { ..*callout }
}

fn main() {}
