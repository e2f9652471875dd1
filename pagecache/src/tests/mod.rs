//! Tests of volumes.

mod ahead;
mod cpus;
mod device;
mod forget;
mod group;
mod history;
mod mapped;
mod matrix;
mod memory;
mod property;
mod reads;
mod rig;
mod syncs;
mod writes;
