//! The machine xtask runs on: its programs and how to get those that are missing.

pub mod install;
pub mod interrupt;
pub mod packages;
pub mod program;
pub mod workspace;
