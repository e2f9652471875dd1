//! The tables of ratios: `undercroft-ratios heap|bhqueue|allocators [ROUNDS]`.
//!
//! One line for each candidate: case, name, nanoseconds (middle, least), ratio to the case's first candidate; tab-separated.

use std::process::ExitCode;

use crossbeam_queue::{ArrayQueue, SegQueue};
use undercroft_hal::bench::{Node, NodeQueue};
use undercroft_hal_benches::allocators::{Allocator, Buddy, LinkedList, Locked, Talc};
use undercroft_hal_benches::queue::Subject;
use undercroft_hal_benches::rounds::{Candidate, interleaved};
use undercroft_hal_benches::{heap, queue};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let what = words.next();
    let rounds = words.next().map_or(Ok(15), |word| word.parse());
    let Ok(rounds) = rounds else { return usage() };
    match what.as_deref() {
        Some("heap") => heaps(rounds),
        Some("bhqueue") => queues(rounds),
        Some("allocators") => allocators(rounds),
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: undercroft-ratios heap|bhqueue|allocators [ROUNDS]");
    ExitCode::from(2)
}

fn show(case: &str, rounds: usize, mut candidates: Vec<Candidate<'_>>) {
    for (measured, ratio) in interleaved(rounds, &mut candidates) {
        println!("{case}\t{}\t{:.2}\t{:.2}\t{ratio:.3}", measured.name, measured.median(), measured.least());
    }
}

const PAIRS: usize = 20_000;
const CHURN: usize = 100_000;
/// How many CPUs, and in words.
const ON: [(usize, &str); 2] = [(1, "1 CPU"), (2, "2 CPUs")];

fn pairs<A: Allocator>(heap: &A, cpus: usize) -> Candidate<'_> {
    (A::NAME, Box::new(move || heap::round_of_pairs(heap, cpus, PAIRS)))
}

fn churn<A: Allocator>(heap: &A, cpus: usize) -> Candidate<'_> {
    (A::NAME, Box::new(move || heap::round_of_churn(heap, cpus, CHURN)))
}

fn heaps(rounds: usize) {
    let (talc, locked) = (Talc::make(), Locked::make());
    for (cpus, on) in ON {
        show(&format!("pairs, {on}"), rounds, vec![pairs(&locked, cpus), pairs(&talc, cpus)]);
        show(&format!("churn, {on}"), rounds, vec![churn(&locked, cpus), churn(&talc, cpus)]);
    }
    for size in heap::SIZES {
        let candidates: Vec<Candidate<'_>> =
            vec![(Locked::NAME, Box::new(|| single(&locked, size))), (Talc::NAME, Box::new(|| single(&talc, size)))];
        show(&format!("pairs of {size}, 1 CPU"), rounds, candidates);
    }
}

fn single<A: Allocator>(heap: &A, size: usize) -> f64 {
    const COUNT: usize = 100_000;
    let start = std::time::Instant::now();
    heap::pairs(heap, size, COUNT);
    start.elapsed().as_nanos() as f64 / COUNT as f64
}

fn allocators(rounds: usize) {
    let (talc, list, buddy) = (Talc::make(), LinkedList::make(), Buddy::make());
    for (cpus, on) in ON {
        show(&format!("pairs, {on}"), rounds, vec![pairs(&talc, cpus), pairs(&list, cpus), pairs(&buddy, cpus)]);
        show(&format!("churn, {on}"), rounds, vec![churn(&talc, cpus), churn(&list, cpus), churn(&buddy, cpus)]);
    }
    println!("density\t{}\t{:.3}", Talc::NAME, heap::density(&Talc::make()));
    println!("density\t{}\t{:.3}", LinkedList::NAME, heap::density(&LinkedList::make()));
    println!("density\t{}\t{:.3}", Buddy::NAME, heap::density(&Buddy::make()));
}

fn queues(rounds: usize) {
    const COUNT: usize = 200_000;
    const ROOM: usize = 256;
    let nodes: &'static [Node] = queue::nodes(ROOM);
    let ours: NodeQueue = queue::Subject::make(ROOM);
    let array: ArrayQueue<_> = queue::Subject::make(ROOM);
    let seg: SegQueue<_> = queue::Subject::make(ROOM);
    macro_rules! case {
        ($case:literal, $round:path) => {
            show(
                $case,
                rounds,
                vec![
                    (<NodeQueue as Subject>::NAME, Box::new(|| $round(&ours, nodes, COUNT))),
                    (<ArrayQueue<_> as Subject>::NAME, Box::new(|| $round(&array, nodes, COUNT))),
                    (<SegQueue<_> as Subject>::NAME, Box::new(|| $round(&seg, nodes, COUNT))),
                ],
            );
        };
    }
    case!("push and pop in turn, 1 CPU", queue::round_alternating);
    case!("256 pushes and 256 pops, 1 CPU", queue::round_of_batches);
    case!("a producer on the other CPU", queue::round_across);
}
