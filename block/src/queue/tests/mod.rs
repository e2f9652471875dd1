//! The queue over a device that does what a test says, in virtual time.

mod busy;
mod deadlines;
mod far;
mod hazards;
mod ladder;
mod limits;
mod merging;
mod model;
mod property;
mod retire;
mod rig;
mod shards;
mod steps;

use super::broken::{Hazard, with};
