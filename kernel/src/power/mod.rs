//! The power workload: disks are written and flushed by several workers at once, some of them through a page cache, and each worker says on the
//! console which generation of its writes is durable before it begins the next one. The host cuts the power meanwhile, and looks for all that
//! was said (`docs/power.md`). Task context.

mod plan;
mod worker;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use undercroft_block::Error;
use undercroft_block::queue::QueueStats;
use undercroft_hal::work::{TaskWork, Turn};
use undercroft_hal::{Task, cpu, executor};
use undercroft_pagecache::{Config, Volume};

use self::plan::{Author, SECTOR, STRIPE, STRIPES, WORKERS};
use self::worker::{Job, Path, Worker};
use crate::disks::Disk;
use crate::json::{Object, Value};
use crate::options::Options;
use crate::report::Report;

/// A cache that is smaller than what is written, and writes back while it is written to.
const CACHE: Config = Config {
    pages: 64,
    operations: 32,
    pins: 4,
    handles: 4,
    transfer: 16 << 10,
    read: 16 << 10,
    reads: 4,
    writes: 4,
    tick: Duration::from_millis(20),
    age: 2,
    dirty_percent: 40,
    background_percent: 25,
    retry: (Duration::from_millis(100), Duration::from_secs(1)),
    ahead: 8,
};

/// Runs the workload on all disks that may be written. How many generations were written.
pub(crate) fn run(cx: &Task, disks: &[Disk], options: &Options, report: &Report) -> u64 {
    // Its run ends the wait below.
    let ended = Arc::new(TaskWork::new(cpu::current(), |_| Turn::Done));
    let mut workers = Vec::new();
    for disk in disks {
        match hire(cx, disk, options, &ended, report) {
            Ok(hired) => workers.extend(hired),
            Err(error) => report.problem(&format_args!("there is no cache: {error}"), Some(&disk.name)),
        }
    }
    for (number, worker) in workers.iter().enumerate() {
        let worker = Arc::clone(worker);
        drop(executor::run_on(cx, number, move |cx| worker.run(cx)));
    }
    let mut told = Vec::new();
    while told.len() < workers.len() {
        let mut next = None;
        cx.wait_until(|| {
            next = (0..workers.len()).find(|number| !told.contains(number) && workers[*number].is_over());
            next.is_some()
        });
        told.extend(next);
        if let Some(worker) = next.and_then(|number| workers.get(number)) {
            tell(worker, report);
        }
    }
    for disk in disks {
        tell_queue(disk, report);
    }
    workers.iter().map(|worker| worker.generation()).sum()
}

/// What a disk's queue has made of it.
fn tell_queue(disk: &Disk, report: &Report) {
    let QueueStats { accepted, completed, merged, .. } = disk.queue.stats();
    report.voice().say(&Object {
        event: Some("queue"),
        fields: &[
            ("disk", Value::Text(&disk.device.identity().serial)),
            ("accepted", Value::Number(accepted)),
            ("completed", Value::Number(completed)),
            ("merged", Value::Number(merged)),
        ],
    });
}

fn hire(
    cx: &Task,
    disk: &Disk,
    options: &Options,
    ended: &Arc<TaskWork>,
    report: &Report,
) -> Result<Vec<Arc<Worker>>, Error> {
    let serial = &disk.device.identity().serial;
    let region = options.disks.iter().find(|rule| rule.serial == *serial).and_then(|rule| rule.writable);
    let Some((start, length)) = region else { return Ok(Vec::new()) };
    let (info, size) = (disk.device.info(), SECTOR as u64);
    let fits = length >= STRIPES * STRIPE * size && start.checked_add(length).is_some_and(|end| end <= info.bytes());
    if !fits || u64::from(info.block_size) != size || !start.is_multiple_of(size) {
        report.problem(&"the region has not the blocks that the workload writes", Some(&disk.name));
        return Ok(Vec::new());
    }
    let cached = options.cached.iter().any(|cached| cached == serial);
    let volume = if cached { Some(Volume::open(cx, Arc::clone(&disk.device), CACHE)?) } else { None };
    let hire = |worker| {
        let path = match &volume {
            Some(volume) => Path::Cache(volume.another(cx).ok_or(Error::Busy)?),
            None => Path::Queue(Arc::clone(&disk.device)),
        };
        Ok(Worker::new(Job {
            author: Author { disk: plan::disk_number(serial), seed: options.seed, worker },
            serial: serial.clone(),
            path,
            start: start / size,
            generations: options.generations,
            acks: options.acks,
            voice: report.voice(),
            ended: Arc::clone(ended),
        }))
    };
    (0..WORKERS).map(hire).collect()
}

fn tell(worker: &Worker, report: &Report) {
    if let Some(error) = worker.failure() {
        report.problem(&format_args!("generation {} failed: {error}", worker.generation()), Some(worker.serial()));
    } else if worker.has_mismatch() {
        report
            .problem(&format_args!("generation {} reads back differently", worker.generation()), Some(worker.serial()));
    }
}
