//! Tests of volumes.

mod device;
mod forget;
mod history;
mod property;
mod reads;
mod rig;
mod syncs;
mod writes;
