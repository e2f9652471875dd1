//! What is measured, and how: shared by the criterion benches and by the table of ratios.

pub mod allocators;
pub mod counting;
pub mod heap;
pub mod platform;
pub mod queue;
pub mod rounds;
