//! How many bytes the cache holds for each page, beyond the page.

use undercroft_hal::Task;
use undercroft_hal_benches::counting::{Counting, live};
use undercroft_pagecache::PAGE;

use crate::hits::PAGES;
use crate::volume;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The fewest pages, at which all transfers are as large as with many.
const FEW: u32 = 32;

/// Bytes for each page of a full cache, all that its volume holds, beyond those of a small one.
pub fn bytes(cx: &Task) -> f64 {
    (held(cx, PAGES) - held(cx, FEW)) as f64 / f64::from(PAGES - FEW) - PAGE as f64
}

fn held(cx: &Task, pages: u32) -> usize {
    let before = live();
    let volume = volume::open(cx, pages, u64::from(PAGES));
    volume::fill(cx, &volume, pages);
    let after = live();
    drop(volume);
    cx.run_pending();
    after - before
}
