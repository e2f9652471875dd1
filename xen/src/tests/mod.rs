//! The driver against the model of its host, and its hazards with their controls.

mod hazards;
#[path = "../../../hosts/tests/xen/rig.rs"]
mod rig;
