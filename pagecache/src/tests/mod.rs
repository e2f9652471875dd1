//! Tests of volumes.

mod ahead;
mod aside;
mod cpus;
mod device;
mod direct;
mod file;
mod forget;
mod futures;
mod group;
mod history;
#[cfg(not(shuttle))]
mod holds;
mod mapped;
mod matrix;
mod memory;
mod others;
mod property;
mod reads;
mod rig;
mod syncs;
mod writes;
