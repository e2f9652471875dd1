//! What queues are asked to do.
//!
//! The bottom-half queue is intrusive: a node is pushed and comes back, and nothing is copied or allocated. The others carry the
//! node's address, which is what a program would put into them.
//!
//! UNSAFETY: keeps the intrusive queue's contract: every function below has one consumer, and pushes a node only after it came back.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::{ArrayQueue, SegQueue};
use undercroft_hal::bench::{Node, NodeQueue};

use crate::rounds;

/// A queue of nodes: many producers, one consumer.
pub trait Subject: Sync {
    /// For the table.
    const NAME: &'static str;
    /// An empty one that can hold `room` nodes at least.
    fn make(room: usize) -> Self;
    /// Appends.
    fn put(&self, node: &'static Node);
    /// Takes the first.
    fn take(&self) -> Option<&'static Node>;
}

impl Subject for NodeQueue {
    const NAME: &'static str = "bhqueue";
    fn make(_room: usize) -> Self {
        Self::new()
    }
    fn put(&self, node: &'static Node) {
        // SAFETY: see the module.
        unsafe { self.push(node) };
    }
    fn take(&self) -> Option<&'static Node> {
        // SAFETY: see the module.
        unsafe { self.pop() }
    }
}

impl Subject for ArrayQueue<&'static Node> {
    const NAME: &'static str = "crossbeam ArrayQueue";
    fn make(room: usize) -> Self {
        Self::new(room)
    }
    fn put(&self, node: &'static Node) {
        let mut node = node;
        // Full: what a program would have to do.
        while let Err(back) = self.push(node) {
            node = back;
            std::hint::spin_loop();
        }
    }
    fn take(&self) -> Option<&'static Node> {
        self.pop()
    }
}

impl Subject for SegQueue<&'static Node> {
    const NAME: &'static str = "crossbeam SegQueue";
    fn make(_room: usize) -> Self {
        Self::new()
    }
    fn put(&self, node: &'static Node) {
        self.push(node);
    }
    fn take(&self) -> Option<&'static Node> {
        self.pop()
    }
}

/// Nodes that are in no queue.
pub fn nodes(count: usize) -> &'static [Node] {
    (0..count).map(|_| Node::new()).collect::<Vec<_>>().leak()
}

/// One push and one pop, `count` times.
pub fn alternate<Q: Subject>(queue: &Q, nodes: &'static [Node], count: usize) {
    for at in 0..count {
        queue.put(&nodes[at % nodes.len()]);
        black_box(queue.take()).expect("it was pushed");
    }
}

/// As many pushes as there are nodes and then as many pops, until `count` went through.
pub fn batches<Q: Subject>(queue: &Q, nodes: &'static [Node], count: usize) {
    for _ in 0..count / nodes.len() {
        nodes.iter().for_each(|node| queue.put(node));
        nodes.iter().for_each(|_| {
            black_box(queue.take()).expect("it was pushed");
        });
    }
}

/// A round of [`alternate`]: nanoseconds per push and pop.
pub fn round_alternating<Q: Subject>(queue: &Q, nodes: &'static [Node], count: usize) -> f64 {
    rounds::on_cpus(1, |_| alternate(queue, nodes, count)) / count as f64
}

/// A round of [`batches`].
pub fn round_of_batches<Q: Subject>(queue: &Q, nodes: &'static [Node], count: usize) -> f64 {
    rounds::on_cpus(1, |_| batches(queue, nodes, count)) / count as f64
}

/// A producer on one CPU and the consumer on the other: nanoseconds per node. A node is pushed again once it came back.
pub fn round_across<Q: Subject>(queue: &Q, nodes: &'static [Node], count: usize) -> f64 {
    #[repr(align(64))]
    struct Idle(AtomicBool);
    let idle: Vec<Idle> = nodes.iter().map(|_| Idle(AtomicBool::new(true))).collect();
    let first = nodes.as_ptr().addr();
    let nanos = rounds::on_cpus(2, |cpu| {
        if cpu == 0 {
            for at in 0..count {
                let at = at % nodes.len();
                while !idle[at].0.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                idle[at].0.store(false, Ordering::Relaxed);
                queue.put(&nodes[at]);
            }
            return;
        }
        let mut left = count;
        while left > 0 {
            if let Some(node) = queue.take() {
                let at = (std::ptr::from_ref(node).addr() - first) / size_of::<Node>();
                idle[at].0.store(true, Ordering::Release);
                left -= 1;
            } else {
                std::hint::spin_loop();
            }
        }
    });
    nanos / count as f64
}
