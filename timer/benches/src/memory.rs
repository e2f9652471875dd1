//! How many bytes a service holds for each timer.

use undercroft_hal_benches::counting::{Counting, live};

use crate::subject::{OUTSTANDING, Random, SPREAD, Subject};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes for each of a million armed timers, all that the service and its user hold for them, beyond those of a service with one.
pub fn bytes<S: Subject>() -> f64 {
    (held::<S>(OUTSTANDING) - held::<S>(1)) as f64 / f64::from(OUTSTANDING - 1)
}

fn held<S: Subject>(count: u32) -> usize {
    let before = live();
    let mut subject = S::make(count);
    let mut random = Random(4711);
    (0..count).for_each(|id| subject.start(id, 1 + random.below(SPREAD)));
    let after = live();
    drop(subject);
    after - before
}
