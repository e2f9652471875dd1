//! Reads of 4 KiB that hit, at random over 64 MiB: the page cache, a copy and nothing else, a crate's cache, and Linux's.
//!
//! All copy into the same buffer, in the same order of pages, of which each begins with its number: the sum of those is checked.

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use quick_cache::sync::Cache;
use undercroft_hal::Task;
use undercroft_hal_benches::rounds::Candidate;
use undercroft_pagecache::{PAGE, Volume};

use crate::random::Random;
use crate::volume;

/// 64 MiB.
pub const PAGES: u32 = 16_384;
/// Reads of a round: few milliseconds, so that on a busy machine some rounds of each candidate run undisturbed.
const READS: u32 = 10_000;
/// Reads before those: the processor's caches are as a candidate's own reads leave them, not those of the one before.
const BEFORE: u32 = 5_000;

type Page = [u8; PAGE];

/// A page that lies as pages do: how fast a copy is depends on where both ends lie within theirs.
#[derive(Clone)]
#[repr(C, align(4096))]
struct Aligned(Page);

/// A page that begins with its number.
fn page(index: u64) -> Page {
    let mut page = [0x5a; PAGE];
    page[..8].copy_from_slice(&index.to_le_bytes());
    page
}

/// Reads at random: nanoseconds for each.
///
/// # Panics
/// If other bytes come than should.
fn round(mut read: impl FnMut(u64, &mut Page)) -> f64 {
    let (mut random, mut into, mut sum) = (Random(2026), Box::new(Aligned([0; PAGE])), 0u64);
    let mut start = Instant::now();
    for at in 0..BEFORE + READS {
        if at == BEFORE {
            start = Instant::now();
        }
        let index = random.below(u64::from(PAGES));
        read(index, black_box(&mut into.0));
        let number = into.0.first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
        sum = sum.wrapping_add(number ^ index);
    }
    let nanos = start.elapsed().as_nanos() as f64 / f64::from(READS);
    assert_eq!(sum, 0, "not the pages that were asked for");
    nanos
}

/// A candidate of ours: reads of a volume that has it all.
pub fn ours<'a>(cx: &'a Task, volume: &'a Volume) -> Candidate<'a> {
    let round = move || {
        let before = volume.stats(cx).misses;
        let nanos = round(|index, into| volume.read_blocking(cx, index * PAGE as u64, into).expect("a read"));
        assert_eq!(volume.stats(cx).misses, before, "all reads hit");
        nanos
    };
    ("undercroft Volume", Box::new(round))
}

/// The volume of [`ours`], filled.
pub fn filled(cx: &Task) -> Volume {
    let volume = volume::open(cx, PAGES, u64::from(PAGES));
    volume::fill(cx, &volume, PAGES);
    volume
}

/// What there is beside it.
///
/// # Panics
/// If there is no room for a file of 64 MiB among the temporary ones.
pub fn others() -> Vec<Candidate<'static>> {
    let pages: Vec<Aligned> = (0..u64::from(PAGES)).map(|index| Aligned(page(index))).collect();
    let bare = move || round(|index, into| into.copy_from_slice(&pages[index as usize].0));

    // Room for twice as many, so that none is evicted from its shards.
    let cache = Cache::new(2 * PAGES as usize);
    (0..u64::from(PAGES)).for_each(|index| cache.insert(index, Arc::new(page(index))));
    let cached = move || round(|index, into| into.copy_from_slice(&cache.get(&index).expect("it was put in")[..]));

    let file = file().expect("a temporary file");
    let linux = move || round(|index, into| file.read_exact_at(into, index * PAGE as u64).expect("a read"));
    vec![
        ("memcpy from random pages", Box::new(bare)),
        ("quick_cache 0.7.0 get, and copy", Box::new(cached)),
        ("Linux pread, cached file", Box::new(linux)),
    ]
}

/// A file of those pages, in Linux's cache. Its name is gone already.
fn file() -> std::io::Result<File> {
    let path = std::env::temp_dir().join(format!("undercroft-hits-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    let mut into = [0; PAGE];
    for index in 0..u64::from(PAGES) {
        file.write_all_at(&page(index), index * PAGE as u64)?;
    }
    (0..u64::from(PAGES)).try_for_each(|index| file.read_exact_at(&mut into, index * PAGE as u64))?;
    Ok(file)
}
