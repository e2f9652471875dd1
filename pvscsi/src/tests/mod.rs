//! The driver against the model of another hand.

mod disks;
mod hazards;
mod hostile;
mod hotplug;
mod interrupts;
mod manage;
mod rig;
mod setup;
mod shapes;

pub(crate) use rig::caught;
use rig::{
    Collector, GOOD, NOTHING, Rig, Sink, TEST_UNIT_READY, at, bytes, command, end, go, pattern, pieces, read, read10,
    ready, settle, with_pieces, write,
};
