//! T-21: what a stop found is looked at.
#![deny(unused_must_use)]
use undercroft_timer::Callout;

fn stop(callout: &Callout) {
    callout.stop();
}

fn main() {}
