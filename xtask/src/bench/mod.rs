//! `cargo xtask bench`: what others do on the same virtual hardware, and beside our own heap, queue, callouts and page cache.

mod callouts;
mod chart;
mod initramfs;
mod linux;
mod pagecache;
mod ratio;
mod ratios;
mod xen;

use anyhow::Result;

use crate::cli::{BenchOptions, BenchWith};

/// `cargo xtask bench`.
pub fn command(options: &BenchOptions) -> Result<bool> {
    match &options.with {
        BenchWith::Linux(options) => linux::command(options),
        BenchWith::Xen(options) => xen::command(options),
        BenchWith::Bhqueue(options) => ratios::bhqueue(options),
        BenchWith::Heap(options) => ratios::heap(options),
        BenchWith::Callouts(options) => callouts::command(options),
        BenchWith::Pagecache(options) => pagecache::command(options),
    }
}
