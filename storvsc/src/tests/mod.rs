//! The driver against the model of the host, and its hazards with their controls.

#![allow(dead_code)]
mod basics;
mod hazards;
mod hostile;
mod io;
mod life;
mod rig;
mod versions;

use alloc::sync::Arc;

use rig::*;
use undercroft_hal::{Task, cpu};

use crate::Storvsc;

/// The message of the panic of `f`: what a check says of a broken twin.
pub(crate) fn caught(f: impl FnOnce()) -> String {
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).expect_err("the hazard goes unseen");
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast_ref::<&str>().map_or_else(String::new, |text| (*text).to_owned()),
    }
}
