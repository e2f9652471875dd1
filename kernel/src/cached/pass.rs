//! Reads a disk whole through its cache: the beginning twice, so that the second time it is there. Task context.

use alloc::vec::Vec;

use sha2::{Digest, Sha256};
use undercroft_block::Error;
use undercroft_hal::{Instant, Task};
use undercroft_pagecache::{PAGE, Stats, Volume};

use crate::account::Stretch;
use crate::disks::Disk;
use crate::json::{Object, Value};
use crate::report::{Progress, Report};
use crate::verify::Sum;

/// Bytes that are read at a time.
pub(super) const CHUNK: usize = 128 << 10;

/// What the cache did in a stretch of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Seen {
    hits: u64,
    misses: u64,
    evictions: u64,
    reads: u64,
    pages_read: u64,
    ahead: u64,
    ahead_used: u64,
    ahead_wasted: u64,
}

impl Seen {
    fn between(before: &Stats, after: &Stats) -> Self {
        Self {
            hits: after.hits - before.hits,
            misses: after.misses - before.misses,
            evictions: after.evictions - before.evictions,
            reads: after.reads - before.reads,
            pages_read: after.pages_read - before.pages_read,
            ahead: after.ahead - before.ahead,
            ahead_used: after.ahead_used - before.ahead_used,
            ahead_wasted: after.ahead_wasted - before.ahead_wasted,
        }
    }
}

/// A disk read whole.
struct Pass {
    sum: Sum,
    nanos: u64,
    first: Seen,
    /// The beginning, read once more.
    again: Seen,
    again_bytes: u64,
    equal: bool,
}

/// A buffer of [`CHUNK`] bytes.
///
/// # Errors
/// [`Error::NoMemory`].
pub(super) fn buffer() -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(CHUNK).map_err(|_| Error::NoMemory)?;
    bytes.resize(CHUNK, 0);
    Ok(bytes)
}

/// Reads a disk whole through its cache, and reports. `false` if that failed. `share` is how many pages the volume may have.
pub(crate) fn phase(cx: &Task, disk: &Disk, volume: &Volume, share: u32, report: &Report) -> bool {
    match read_whole(cx, disk, volume, share, report) {
        Ok(pass) => {
            if !pass.equal {
                report.problem(&"what the cache has is not what it read", Some(&disk.name));
            }
            show(disk, volume.size(cx), &pass, report);
            true
        }
        Err(error) => {
            report.problem(&format_args!("reading the disk through its cache failed: {error}"), Some(&disk.name));
            false
        }
    }
}

fn read_whole(cx: &Task, disk: &Disk, volume: &Volume, share: u32, report: &Report) -> Result<Pass, Error> {
    let size = volume.size(cx);
    // Half of the share is there afterwards, whatever the policy.
    let part = (u64::from(share) / 2 * PAGE as u64).min(size);
    let mut bytes = buffer()?;
    let mut progress = report.progress(&disk.name, "cache", size + part);
    let (begun, before) = (Instant::now(), volume.stats(cx));
    let mut whole = Sha256::new();
    let stretch = Stretch::begin();
    hash(cx, volume, 0..part, &mut bytes, &mut whole, &mut progress)?;
    let (first_part, half) = (whole.clone(), volume.stats(cx));
    let mut once_more = Sha256::new();
    hash(cx, volume, 0..part, &mut bytes, &mut once_more, &mut progress)?;
    let middle = volume.stats(cx);
    hash(cx, volume, part..size, &mut bytes, &mut whole, &mut progress)?;
    drop(stretch);
    let after = volume.stats(cx);
    let (mut all, again) = (Seen::between(&before, &after), Seen::between(&half, &middle));
    // What is read ahead in one part may be used in the next: only hits and misses are told apart.
    (all.hits, all.misses) = (all.hits - again.hits, all.misses - again.misses);
    Ok(Pass {
        sum: Sum(whole.finalize().into()),
        nanos: begun.elapsed().as_nanos() as u64,
        first: all,
        again,
        again_bytes: part,
        equal: first_part.finalize() == once_more.finalize(),
    })
}

/// Reads a range in order and hashes it.
fn hash(
    cx: &Task,
    volume: &Volume,
    range: core::ops::Range<u64>,
    bytes: &mut [u8],
    sum: &mut Sha256,
    progress: &mut Progress<'_>,
) -> Result<(), Error> {
    let mut at = range.start;
    while at < range.end {
        let len = (range.end - at).min(bytes.len() as u64) as usize;
        volume.read_blocking(cx, at, &mut bytes[..len])?;
        sum.update(&bytes[..len]);
        progress.advance(len as u64);
        at += len as u64;
    }
    Ok(())
}

fn show(disk: &Disk, bytes: u64, pass: &Pass, report: &Report) {
    let Pass { sum, nanos, first, again, again_bytes, .. } = pass;
    if !report.is_json() {
        report.text(format_args!(
            "  {} through its cache: sha256 {sum}; {} pages read in {} requests, {} of them ahead, {} of those used",
            disk.name, first.pages_read, first.reads, first.ahead, first.ahead_used
        ));
        report.text(format_args!(
            "  {} the first {} KiB again: {} pages were there, {} were not",
            disk.name,
            again_bytes >> 10,
            again.hits,
            again.misses
        ));
        return;
    }
    report.json(&Object {
        event: Some("cached"),
        fields: &[
            ("name", Value::Text(&disk.name)),
            ("bytes", Value::Number(bytes)),
            ("sha256", Value::Text(sum)),
            ("nanoseconds", Value::Number(*nanos)),
            ("hits", Value::Number(first.hits)),
            ("misses", Value::Number(first.misses)),
            ("evictions", Value::Number(first.evictions)),
            ("reads", Value::Number(first.reads)),
            ("pages_read", Value::Number(first.pages_read)),
            ("ahead", Value::Number(first.ahead)),
            ("ahead_used", Value::Number(first.ahead_used)),
            ("ahead_wasted", Value::Number(first.ahead_wasted)),
            ("again_bytes", Value::Number(*again_bytes)),
            ("again_hits", Value::Number(again.hits)),
            ("again_misses", Value::Number(again.misses)),
        ],
    });
}
