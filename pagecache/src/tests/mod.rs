//! Tests of volumes.

mod ahead;
mod cpus;
mod device;
mod forget;
mod group;
mod history;
mod matrix;
mod memory;
mod property;
mod reads;
mod rig;
mod syncs;
mod writes;
