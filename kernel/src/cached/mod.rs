//! The page cache of the image: one, with a volume before each disk. Task context.
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
use undercroft_pagecache::{Cache, Config, PAGE, Volume};

use crate::disks::Disk;
use crate::report::Report;

/// The part of the machine's memory that pages may take: a sixteenth, within bounds.
const PART: u64 = 16;
const BOUNDS: (u64, u64) = (1 << 20, 1 << 30);
/// Memory below which a volume gets fewer and smaller transfers.
const SMALL: u64 = 64 << 20;
/// Volumes at most.
const VOLUMES: u16 = 512;

/// The image's cache.
pub(crate) struct Pages {
    /// Without memory for it there is none.
    cache: Option<Cache>,
    config: Config,
}

impl Pages {
    /// The cache of a machine with so many bytes of memory.
    pub(crate) fn new(memory: u64) -> Self {
        let pages = ((memory / PART).clamp(BOUNDS.0, BOUNDS.1) / PAGE as u64) as u32;
        let config = Config { pages, ..Config::default() };
        let small = Config { transfer: 64 << 10, read: 64 << 10, reads: 3, writes: 1, ahead: 32, ..config };
        Self { cache: Cache::new(pages, VOLUMES).ok(), config: if memory < SMALL { small } else { config } }
    }

    /// Puts a cache before a disk's queue.
    ///
    /// # Errors
    /// As [`Cache::open`]; [`Error::Busy`] if the queue has no place for a further submitter.
    pub(crate) fn open(&self, cx: &Task, queue: &BlockQueue) -> Result<Volume, Error> {
        let handle = queue.handle().ok_or(Error::Busy)?;
        let cache = self.cache.as_ref().ok_or(Error::NoMemory)?;
        cache.open(cx, Arc::new(handle) as Arc<dyn BlockDevice>, self.config)
    }

    /// The cache.
    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref()
    }

    /// Pages that each volume can always come back to.
    pub(crate) fn share(&self, cx: &Task) -> u32 {
        self.cache.as_ref().map_or(0, |cache| cache.totals(cx).share)
    }
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
