//! Linux in May 2000 (source 004): handlers that add, delete and free their own timer, three CPUs, timers with a reference count.

mod control;
mod ours;
mod waits;
