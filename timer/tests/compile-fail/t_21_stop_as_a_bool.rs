//! T-21: what a stop found is no yes or no.
use undercroft_timer::Callout;

fn free_if_stopped(callout: &Callout) {
    if callout.stop() {
        println!("freed");
    }
}

fn main() {}
