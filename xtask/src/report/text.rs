//! A run in words.

use std::fmt::Write as _;

use super::event::{Cached, Event, Found, Sequential, Speed};
use super::session::{Seen, Session};

/// What to say about an event as it comes in; nothing about most.
pub fn live(event: &Event) -> Option<String> {
    match event {
        Event::Hello(hello) => Some(format!(
            "machine: {}, {} CPUs, {}, clock {}, timer {} (undercroft {})",
            hello.machine,
            hello.cpus,
            bytes(hello.memory_bytes),
            hello.clock,
            hello.timer,
            hello.version
        )),
        Event::Found(found) => Some(found_text(found)),
        Event::Device { driver, controller, detail } => Some(format!("also {driver} on {controller}: {detail}")),
        Event::Written { name, bytes: written, flushed, verified, .. } => {
            let flushed = if *flushed { "flushed" } else { "NOT FLUSHED" };
            let verified = if *verified { "read back equal" } else { "READ BACK DIFFERENT" };
            Some(format!("{name}: {} written, {flushed}, {verified}", bytes(*written)))
        }
        Event::Files(files) => Some(format!(
            "{}: partition {}, {} through the {}: {} files with {} in {} directories, {} as the list says, {} not",
            files.name,
            files.partition,
            files.system,
            files.through,
            files.files,
            bytes(files.bytes),
            files.directories,
            files.checked,
            files.wrong
        )),
        Event::Stored(stored) => Some(format!(
            "{}: partition {}, {} files with {} written through the cache, synced, found on the device",
            stored.name,
            stored.partition,
            stored.files,
            bytes(stored.bytes)
        )),
        Event::Latency(latency) => Some(format!(
            "interrupt to handler {} (p99 {}), to bottom half {} (p99 {}), to waiting task {} (p99 {}) cycles",
            latency.handler_p50,
            latency.handler_p99,
            latency.bottom_half_p50,
            latency.bottom_half_p99,
            latency.task_p50,
            latency.task_p99
        )),
        Event::Xen(xen) => Some(format!(
            "Xen: {} notifications, {} grants made and {} taken back since the disks were found",
            xen.notifications, xen.granted, xen.revoked
        )),
        Event::Cpu(cpu) => Some(format!(
            "CPU {}: {} interrupts of devices, {} of its timer, {} kicks",
            cpu.cpu, cpu.device_interrupts, cpu.alarms, cpu.kicks
        )),
        Event::Heap(heap) => Some(format!(
            "{} heap: {} blocks with {} bytes, {} blocks leaked, {} allocations, {} failed",
            heap.heap, heap.live_blocks, heap.live_bytes, heap.leaked_blocks, heap.allocations, heap.failures
        )),
        Event::Reserve(reserve) => Some(format!(
            "reserve for write-back: {} KiB of page frames, {} KiB of the locked heap, used {} times",
            reserve.frames_bytes >> 10,
            reserve.heap_bytes >> 10,
            reserve.used
        )),
        Event::Problem { what, disk: Some(disk) } => Some(format!("PROBLEM: disk {disk}: {what}")),
        Event::Problem { what, disk: None } => Some(format!("PROBLEM: {what}")),
        _ => None,
    }
}

fn found_text(found: &Found) -> String {
    let mut text = format!(
        "{}: {} {} on {}, blocks of {}{}, {} queue{} of {}, {}{}",
        found.name,
        bytes(found.capacity_bytes),
        found.driver,
        found.controller,
        found.block_size,
        if found.physical_block_size == found.block_size {
            String::new()
        } else {
            format!(" (physical {})", found.physical_block_size)
        },
        found.queues,
        if found.queues == 1 { "" } else { "s" },
        found.queue_depth,
        found.interrupts,
        if found.read_only { ", read only" } else { "" },
    );
    if !found.features.is_empty() {
        let _ = write!(text, "\n     features: {}", found.features.join(" "));
    }
    for partition in &found.partitions {
        let _ = write!(
            text,
            "\n     partition {}: {:<18} {:>9} at {:>9}  {}",
            partition.index,
            partition.name,
            bytes(partition.bytes),
            bytes(partition.first_byte),
            partition.kind
        );
    }
    text
}

/// What to say once a disk has been read whole.
pub fn read(seen: &Seen, expected: Option<&str>) -> Option<String> {
    let read = seen.read.as_ref()?;
    let short = &read.sha256[..read.sha256.len().min(16)];
    let match_text = match expected {
        Some(expected) if expected == read.sha256 => "matches the file's",
        Some(_) => "DOES NOT MATCH THE FILE'S",
        None => "(nothing to compare with)",
    };
    let rate = read.bytes as f64 / (1 << 20) as f64 / (read.nanoseconds.max(1) as f64 / 1e9);
    Some(format!(
        "{}: {} read and hashed at {rate:.0} MiB/s, SHA-256 {short}... {match_text}",
        seen.found.name,
        bytes(read.bytes)
    ))
}

/// What to say once a disk has been read whole through its cache.
pub fn cached(cached: &Cached, expected: Option<&str>) -> String {
    let match_text = match expected {
        Some(expected) if expected == cached.sha256 => "the same bytes",
        Some(_) => "NOT THE FILE'S BYTES",
        None => "(nothing to compare with)",
    };
    format!(
        "{}: through its cache: {match_text}; {} pages in {} requests, {} ahead, {:.1} % of those used; {} read again: {:.1} % were there",
        cached.name,
        cached.pages_read,
        cached.reads,
        cached.ahead,
        cached.ahead_efficiency(),
        bytes(cached.again_bytes),
        cached.hit_rate()
    )
}

/// Reading in order through the cache beside the device itself; empty without any.
pub fn sequential_table(rows: &[Sequential]) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    let head = ["disk", "in order, MiB/s", "cache", "device", "ratio", "device, 8 deep", "ratio"].map(String::from);
    let body = rows.iter().map(|row| {
        [
            row.name.clone(),
            bytes(row.block_bytes),
            format!("{:.0}", row.cache_mib_s),
            format!("{:.0}", row.device_mib_s),
            format!("{:.2}", row.of_device_permille as f64 / 1e3),
            format!("{:.0}", row.device_deep_mib_s),
            format!("{:.2}", row.of_device_deep_permille as f64 / 1e3),
        ]
    });
    table(&std::iter::once(head).chain(body).collect::<Vec<_>>(), 2)
}

/// The table of speeds; empty without any.
pub fn speed_table(rows: &[Speed]) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    let head = ["disk", "operation", "block", "depth", "IOPS", "MiB/s", "p50 us", "p99 us"].map(String::from);
    let body = rows.iter().map(|row| {
        [
            row.name.clone(),
            format!("{} {}", row.pattern, row.op),
            bytes(row.block_bytes),
            row.depth.to_string(),
            format!("{:.0}", row.iops),
            format!("{:.1}", row.mib_s),
            format!("{:.1}", row.p50_us),
            format!("{:.1}", row.p99_us),
        ]
    });
    table(&std::iter::once(head).chain(body).collect::<Vec<_>>(), 2)
}

/// Lines of a table; the first `left` columns are flush left, the others right.
pub fn table<const N: usize>(rows: &[[String; N]], left: usize) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let cell = |(i, text): (usize, &String)| {
        if i < left { format!("{text:<w$}", w = widths[i]) } else { format!("{text:>w$}", w = widths[i]) }
    };
    rows.iter().map(|row| "  ".to_owned() + &row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ")).collect()
}

/// The last lines.
pub fn summary(session: &Session, failures: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(end) = session.end {
        lines.push(format!(
            "{} requests, {} allocations in the I/O path, {:.1} s in the image",
            end.requests,
            end.allocations_in_io_path,
            end.nanoseconds as f64 / 1e9
        ));
    }
    lines.extend(failures.iter().map(|failure| format!("FAILED: {failure}")));
    lines.push(match failures.len() {
        0 => "everything held".into(),
        1 => "1 failure".into(),
        n => format!("{n} failures"),
    });
    lines
}

/// A number of bytes in the largest unit that shows it exactly or with one decimal.
pub fn bytes(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        let one = 1_u64 << shift;
        if bytes >= one {
            return if bytes.is_multiple_of(one) {
                format!("{} {unit}", bytes >> shift)
            } else {
                format!("{:.1} {unit}", bytes as f64 / one as f64)
            };
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::super::session::tests::{A_GOOD_RUN, session};
    use super::*;

    #[test]
    fn sizes_read_well() {
        for (size, text) in [(0, "0 B"), (512, "512 B"), (4096, "4 KiB"), (1536, "1.5 KiB"), (1 << 40, "1 TiB")] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn a_mismatch_cannot_be_overlooked() {
        let session = session(A_GOOD_RUN);
        assert!(read(&session.disks[0], Some("aa")).unwrap().ends_with("matches the file's"));
        assert!(read(&session.disks[0], Some("ab")).unwrap().contains("DOES NOT MATCH"));
    }

    #[test]
    fn failures_are_listed_and_counted() {
        let session = session(A_GOOD_RUN);
        assert_eq!(summary(&session, &[]).last().unwrap(), "everything held");
        let lines = summary(&session, &["x".into(), "y".into()]);
        assert_eq!(lines[lines.len() - 3..], ["FAILED: x", "FAILED: y", "2 failures"]);
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a", "1"], ["long", "1000"]].map(|row| row.map(String::from));
        assert_eq!(table(&rows, 1), ["  a        1", "  long  1000"]);
    }
}
