//! Heaps and their statistics.
//!
//! [`locked`] is the heap behind `alloc`: any context that may allocate. Allocation in a hard interrupt is a defect that the
//! types cannot always refuse (a container that grows there, say), so the heap traps it: a panic in debug builds, a count in
//! release builds, which the image reports at its end.

pub mod locked;
mod stats;

pub use stats::{Stats, stats};

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
