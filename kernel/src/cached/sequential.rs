//! Reading in order, 128 KiB at a time: through the cache, and from the device itself, in turn. Task context.
//!
//! Who reads from the device has one request at a time, as one who reads in order and does not know what comes, or eight. The volume has a
//! quarter of the disk meanwhile, and no more than its share: nothing that was read before is there when it comes round again.

use undercroft_block::{Error, Op};
use undercroft_hal::{Instant, Task};
use undercroft_pagecache::{PAGE, Volume};

use super::pass::{CHUNK, buffer};
use crate::disks::Disk;
use crate::json::{Object, Value};
use crate::lanes::Lanes;
use crate::report::Report;
use crate::verify::chunk_blocks;

/// Turns that each has. The best counts: what else goes on in the host does not come evenly.
const TURNS: u64 = 5;
/// Pages that the volume has at least: room for what is read ahead.
const LEAST: u32 = 256;
/// Requests at the device.
const DEPTHS: [usize; 2] = [1, 8];

/// Where a reader is, and the best of its turns.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    at: u64,
    /// In tenths of MiB per second.
    best: u64,
}

impl Run {
    fn turn(&mut self, bytes: u64, nanos: u64) {
        let rate = u128::from(bytes) * 10 * 1_000_000_000 / u128::from(nanos.max(1)) / (1 << 20);
        self.best = self.best.max(rate as u64);
    }
}

/// Measures for so many milliseconds each, and reports. `share` is how many pages the volume can always have.
///
/// # Errors
/// The first request's that fails.
pub(crate) fn measure(
    cx: &Task,
    disk: &Disk,
    volume: &Volume,
    (millis, share): (u64, u32),
    report: &Report,
) -> Result<(), Error> {
    let quarter = u32::try_from(volume.size(cx) / 4 / PAGE as u64).unwrap_or(u32::MAX);
    volume.resize_cache(cx, share.min(quarter).max(LEAST));
    let result = in_turns(cx, disk, volume, millis, report);
    volume.resize_cache(cx, u32::MAX);
    result
}

fn in_turns(cx: &Task, disk: &Disk, volume: &Volume, millis: u64, report: &Report) -> Result<(), Error> {
    let nanos = (millis * 1_000_000 / TURNS).max(1);
    let (mut cache, mut raw) = (Run::default(), [Run::default(); DEPTHS.len()]);
    let mut bytes = buffer()?;
    for _ in 0..TURNS {
        through_cache(cx, volume, &mut bytes, nanos, &mut cache)?;
        for (depth, run) in DEPTHS.into_iter().zip(&mut raw) {
            from_device(cx, disk, depth, nanos, run)?;
        }
    }
    show(disk, cache, raw, report);
    Ok(())
}

fn through_cache(cx: &Task, volume: &Volume, bytes: &mut [u8], nanos: u64, run: &mut Run) -> Result<(), Error> {
    let (size, begun, mut bytes_read) = (volume.size(cx), Instant::now(), 0);
    loop {
        let len = (size - run.at).min(bytes.len() as u64) as usize;
        volume.read_blocking(cx, run.at, &mut bytes[..len])?;
        (run.at, bytes_read) = ((run.at + len as u64) % size, bytes_read + len as u64);
        let taken = begun.elapsed().as_nanos() as u64;
        if taken >= nanos {
            run.turn(bytes_read, taken);
            return Ok(());
        }
    }
}

fn from_device(cx: &Task, disk: &Disk, depth: usize, nanos: u64, run: &mut Run) -> Result<(), Error> {
    let info = disk.device.info();
    let blocks = u64::from(chunk_blocks(&disk.device, CHUNK as u32));
    let mut lanes = Lanes::new(&disk.device, depth, (blocks * u64::from(info.block_size)) as usize)?;
    let count = lanes.count();
    let places = (info.capacity / blocks).max(1);
    let blocks = blocks.min(info.capacity) as u32;
    let begun = Instant::now();
    let (mut sent, mut done, mut result) = (0_usize, 0_usize, Ok(()));
    loop {
        let over = begun.elapsed().as_nanos() as u64 >= nanos;
        while result.is_ok() && !over && sent < done + count {
            result = lanes.send(cx, sent % count, Op::Read, run.at % places * u64::from(blocks), blocks);
            run.at += 1;
            sent += usize::from(result.is_ok());
        }
        if done == sent {
            break;
        }
        result = result.and(lanes.wait(cx, done % count));
        done += 1;
    }
    run.turn(done as u64 * u64::from(blocks) * u64::from(info.block_size), begun.elapsed().as_nanos() as u64);
    result
}

/// `a` as thousandths of `b`.
fn permille(a: Run, b: Run) -> u64 {
    a.best * 1000 / b.best.max(1)
}

fn show(disk: &Disk, cache: Run, [one, eight]: [Run; 2], report: &Report) {
    if !report.is_json() {
        let mib = |run: Run| run.best / 10;
        report.text(format_args!(
            "  {} in order, 128 KiB at a time: through the cache {} MiB/s; from the device {} one at a time, {} eight",
            disk.name,
            mib(cache),
            mib(one),
            mib(eight)
        ));
        return;
    }
    report.json(&Object {
        event: Some("sequential"),
        fields: &[
            ("name", Value::Text(&disk.name)),
            ("block_bytes", Value::Number(CHUNK as u64)),
            ("cache_mib_s", Value::Tenths(cache.best)),
            ("device_mib_s", Value::Tenths(one.best)),
            ("device_deep_mib_s", Value::Tenths(eight.best)),
            ("of_device_permille", Value::Number(permille(cache, one))),
            ("of_device_deep_permille", Value::Number(permille(cache, eight))),
        ],
    });
}
