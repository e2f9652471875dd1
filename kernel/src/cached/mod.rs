//! The page cache before each disk: one budget for the image, of which each disk's volume has a share. Task context.
//!
//! A volume is a submitter of its own on the disk's queue. What is written past it (the write phase, commands of the monitor) is forgotten in
//! it afterwards: [`forget`].

pub(crate) mod pass;
pub(crate) mod sequential;

use alloc::rc::Rc;
use alloc::sync::Arc;
use core::ops::Range;

use undercroft_block::queue::BlockQueue;
use undercroft_block::{BlockDevice, Error};
use undercroft_hal::Task;
use undercroft_pagecache::{Config, PAGE, Volume};

use crate::disks::Disk;
use crate::report::Report;

/// The part of the machine's memory that pages may take: a sixteenth, within bounds.
const PART: u64 = 16;
const BOUNDS: (u64, u64) = (1 << 20, 1 << 30);
/// Memory below which a volume gets fewer and smaller transfers.
const SMALL: u64 = 64 << 20;
/// Pages that a volume has at least, however many there are.
const LEAST: u32 = 128;

/// What all volumes together may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// In pages.
    pages: u32,
    small: bool,
}

impl Budget {
    /// The budget of a machine with so many bytes of memory.
    pub(crate) fn of(memory: u64) -> Self {
        let bytes = (memory / PART).clamp(BOUNDS.0, BOUNDS.1);
        Self { pages: (bytes / PAGE as u64) as u32, small: memory < SMALL }
    }

    /// The share of one of `volumes` volumes, in pages.
    pub(crate) fn share(self, volumes: usize) -> u32 {
        (self.pages / volumes.max(1) as u32).max(LEAST)
    }

    /// A volume that may have the whole budget when it is alone.
    fn config(self) -> Config {
        let config = Config { pages: self.pages, ..Config::default() };
        if self.small { Config { transfer: 64 << 10, reads: 3, writes: 1, ahead: 32, ..config } } else { config }
    }

    /// Puts a cache before a disk's queue.
    ///
    /// # Errors
    /// As [`Volume::open`]; [`Error::Busy`] if the queue has no place for a further submitter.
    pub(crate) fn open(self, cx: &Task, queue: &BlockQueue) -> Result<Volume, Error> {
        let handle = queue.handle().ok_or(Error::Busy)?;
        Volume::open(cx, Arc::new(handle) as Arc<dyn BlockDevice>, self.config())
    }
}

/// Gives each volume its share, now that there are as many as there are.
pub(crate) fn share_out(cx: &Task, disks: &[Disk], budget: Budget) {
    let volumes = || disks.iter().filter_map(|disk| disk.volume.as_ref());
    let share = budget.share(volumes().count());
    volumes().for_each(|volume| {
        volume.resize_cache(cx, share);
    });
}

/// Forgets what a volume holds of a range of bytes, which was written past it.
pub(crate) fn forget(cx: &Task, disk: &Disk, range: Range<u64>, report: &Report) {
    let Some(volume) = &disk.volume else { return };
    // Whole pages: what the range shares with others is on the device as well.
    let page = PAGE as u64;
    let range = range.start / page * page..range.end.div_ceil(page).saturating_mul(page);
    if let Err(error) = volume.invalidate_blocking(cx, range) {
        report.problem(&format_args!("the cache keeps what is not so any more: {error}"), Some(&disk.name));
    }
}

/// Lets a volume go, when it has written what it still has to; of a disk that is gone it gives that up.
///
/// # Errors
/// Why it cannot have been written.
pub(crate) fn let_go(cx: &Task, volume: Option<Rc<Volume>>, gone: bool) -> Result<(), Error> {
    match volume.and_then(Rc::into_inner).filter(|_| !gone) {
        Some(volume) => volume.close(cx).map_err(|(_, error)| error),
        None => Ok(()),
    }
}
