//! The driver against the model of the host, and its hazards with their controls.

#![allow(dead_code)]
mod basics;
mod hazards;
mod hostile;
mod io;
mod life;
mod panic;
mod recovery;
mod rig;
mod versions;

use alloc::sync::Arc;

use rig::*;
use undercroft_hal::{Task, cpu};
pub(crate) use undercroft_hosts::rig::says;

use crate::Storvsc;
