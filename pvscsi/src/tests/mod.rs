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

use rig::{GOOD, LUNS, Rig, pattern, with_pieces};
pub(crate) use undercroft_hosts::rig::says;
use undercroft_hosts::rig::{
    Collector, NOTHING, Sink, TEST_UNIT_READY, at, bytes, command, end, go, pieces, read, read10, ready, settle, write,
};
