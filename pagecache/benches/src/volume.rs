//! Volumes over a disk without a medium.

use undercroft_hal::Task;
use undercroft_pagecache::{Config, PAGE, Volume};

use crate::device::Disk;

/// A volume with room for `pages`, over a disk of `disk` pages. Nothing is read ahead: what is measured is what is kept.
///
/// # Panics
/// If there is no memory.
pub fn open(cx: &Task, pages: u32, disk: u64) -> Volume {
    Volume::open(cx, Disk::new(disk), Config { pages, ahead: 0, ..Config::default() }).expect("a volume")
}

/// Reads the first pages.
///
/// # Panics
/// If they cannot be.
pub fn fill(cx: &Task, volume: &Volume, pages: u32) {
    let mut into = [0; PAGE];
    for index in 0..u64::from(pages) {
        volume.read_blocking(cx, index * PAGE as u64, &mut into).expect("a read");
    }
    assert_eq!(volume.stats(cx).clean, pages, "all are kept");
}
