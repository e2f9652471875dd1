//! What the image does: finds every disk, reads each whole, writes and verifies a pattern, measures, reports.
//!
//! The machine is the caller's: this library runs in task context on whatever platform `hal` is bound to, and prints through a function that it
//! is given. `docs/console-protocol.md` is the contract with whoever reads its output.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod account;
mod bare;
mod cached;
pub mod disks;
mod engine;
mod entropy;
mod faults;
mod files;
pub mod heaps;
mod histogram;
mod hotplug;
pub mod hyperv;
pub mod json;
mod lanes;
mod latency;
mod load;
pub mod monitor;
mod news;
pub mod options;
mod partitions;
mod pattern;
mod power;
pub mod race;
mod report;
pub mod run;
mod script;
mod speed;
mod sync;
mod verify;
#[cfg(test)]
mod whole_tests;
mod write;
pub mod xen;

pub use options::Options;
pub use report::Report;
pub use run::run;
