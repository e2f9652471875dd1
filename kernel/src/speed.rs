//! The speed table of a disk. Task context.

use undercroft_block::{Error, Op};
use undercroft_hal::Task;

use crate::disks::Disk;
use crate::engine::{self, Load};
use crate::json::{Object, Value};
use crate::report::Report;
use crate::verify::chunk_blocks;

/// A row: operation, sequential, bytes, depth.
const ROWS: [(Op, bool, u32, usize); 6] = [
    (Op::Read, false, 4096, 1),
    (Op::Read, false, 4096, 32),
    (Op::Read, true, 128 * 1024, 8),
    (Op::Write, false, 4096, 1),
    (Op::Write, false, 4096, 32),
    (Op::Write, true, 128 * 1024, 8),
];

/// Measures every row that the disk allows: writes only in the region that may be overwritten.
///
/// # Errors
/// The first failure.
pub(crate) fn measure(
    cx: &Task,
    disk: &Disk,
    writable: Option<(u64, u64)>,
    (millis, seed): (u64, u64),
    report: &Report,
) -> Result<u64, Error> {
    let info = disk.device.info();
    let mut requests = 0;
    for (op, sequential, bytes, depth) in ROWS {
        let block = u64::from(info.block_size);
        let blocks = chunk_blocks(&disk.device, bytes.max(info.block_size));
        let (first, count) = match (op, writable) {
            (Op::Write, None) => continue,
            (Op::Write, Some((start, length))) => (start / block, length / block),
            _ => (0, info.capacity),
        };
        let places = count / u64::from(blocks);
        if places == 0 {
            continue;
        }
        let load = Load { op, sequential, blocks, depth, first, places, nanos: millis * 1_000_000, seed };
        let outcome = engine::run(cx, &disk.device, load)?;
        requests += outcome.requests;
        row(disk, &load, info.block_size, &outcome, report);
    }
    Ok(requests)
}

fn row(disk: &Disk, load: &Load, block_size: u32, outcome: &engine::Outcome, report: &Report) {
    let nanos = u128::from(outcome.nanos.max(1));
    let bytes = u64::from(load.blocks) * u64::from(block_size);
    let iops = (u128::from(outcome.requests) * 1_000_000_000 / nanos) as u64;
    let tenths = u128::from(outcome.requests) * u128::from(bytes) * 10 * 1_000_000_000 / nanos / (1 << 20);
    let op = if load.op == Op::Read { "read" } else { "write" };
    let pattern = if load.sequential { "sequential" } else { "random" };
    if report.is_json() {
        report.json(&Object {
            event: Some("speed"),
            fields: &[
                ("name", Value::Text(&disk.name)),
                ("op", Value::Text(&op)),
                ("pattern", Value::Text(&pattern)),
                ("block_bytes", Value::Number(bytes)),
                ("depth", Value::Number(load.depth as u64)),
                ("requests", Value::Number(outcome.requests)),
                ("nanoseconds", Value::Number(outcome.nanos)),
                ("iops", Value::Number(iops)),
                ("mib_s", Value::Tenths(tenths as u64)),
                ("p50_us", Value::Tenths(outcome.p50 / 100)),
                ("p99_us", Value::Tenths(outcome.p99 / 100)),
            ],
        });
    } else {
        report.text(format_args!(
            "  {} {op:5} {pattern:10} {:>4} KiB depth {:>2}: {iops:>8} IOPS {:>6}.{} MiB/s p50 {:>5} us p99 {:>5} us",
            disk.name,
            bytes >> 10,
            load.depth,
            tenths / 10,
            tenths % 10,
            outcome.p50 / 1000,
            outcome.p99 / 1000,
        ));
    }
}
