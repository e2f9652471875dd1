//! `cargo xtask bench`: what others do on the same virtual hardware.

mod cpio;
mod debian;
mod initramfs;
mod linux;
mod modules;
mod ratio;

use anyhow::Result;

use crate::cli::{BenchOptions, BenchWith};

/// `cargo xtask bench`.
pub fn command(options: &BenchOptions) -> Result<bool> {
    match &options.with {
        BenchWith::Linux(options) => linux::command(options),
    }
}
