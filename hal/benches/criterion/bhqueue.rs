//! Criterion's view of the queues: one push and one pop, and batches.

use criterion::{Criterion, criterion_group, criterion_main};
use crossbeam_queue::{ArrayQueue, SegQueue};
use undercroft_hal::bench::{Node, NodeQueue};
use undercroft_hal_benches::queue::{self, Subject};

fn all<Q: Subject>(criterion: &mut Criterion) {
    let (queue, nodes) = (Q::make(256), queue::nodes(256));
    criterion.bench_function(&format!("push and pop/{}", Q::NAME), |b| b.iter(|| queue::alternate(&queue, nodes, 1)));
    criterion.bench_function(&format!("256 pushes, 256 pops/{}", Q::NAME), |b| {
        b.iter(|| queue::batches(&queue, nodes, 256));
    });
}

criterion_group!(benches, all::<NodeQueue>, all::<ArrayQueue<&'static Node>>, all::<SegQueue<&'static Node>>);
criterion_main!(benches);
