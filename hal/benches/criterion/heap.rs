//! Criterion's view of the heaps: one pair of allocation and free, by size, and churn.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use undercroft_hal_benches::allocators::{Allocator, Buddy, LinkedList, Locked, Talc};
use undercroft_hal_benches::{heap, platform};

fn all<A: Allocator>(criterion: &mut Criterion) {
    platform::become_cpu(0);
    let heap = A::make();
    let mut group = criterion.benchmark_group("pair");
    for size in heap::SIZES {
        group.bench_with_input(BenchmarkId::new(A::NAME, size), &size, |b, &size| {
            b.iter(|| heap::pairs(&heap, size, 1))
        });
    }
    group.finish();
    criterion.bench_function(&format!("churn of 10000/{}", A::NAME), |b| b.iter(|| heap::churn(&heap, 77, 10_000)));
}

criterion_group!(benches, all::<Locked>, all::<Talc>, all::<LinkedList>, all::<Buddy>);
criterion_main!(benches);
