//! The JSON Lines of `cargo xtask run --json`.

use serde_json::{Value, json};

use super::event::{Cached, Cpu, Files, Heap, Latency, Reserve, Sequential, Speed, Stored, Xen};
use super::session::{Seen, Session};
use super::verdict::Expected;

/// What the host found in the region of a disk after the run.
pub type HostVerified = bool;

pub fn boot(image_bytes: u64, milliseconds: f64) -> Value {
    json!({ "event": "boot", "image_bytes": image_bytes, "milliseconds": round(milliseconds) })
}

/// One disk. `expected` is `None` for a disk that the user attached by other means; what did not
/// happen is `null`.
pub fn disk(seen: &Seen, expected: Option<&Expected>, host_verified: Option<HostVerified>) -> Value {
    let found = &seen.found;
    let written = seen.written.as_ref();
    json!({
        "event": "disk",
        "name": found.name,
        "driver": found.driver,
        "controller": found.controller,
        "capacity_bytes": found.capacity_bytes,
        "block_size": found.block_size,
        "queues": found.queues,
        "interrupts": found.interrupts,
        "features": found.features,
        "partitions": found.partitions,
        "read_bytes": seen.read.as_ref().map_or(0, |read| read.bytes),
        "sha256": seen.read.as_ref().map(|read| &read.sha256),
        "sha256_expected": expected.and_then(|expected| expected.sha256.as_ref()),
        "write_bytes": written.map_or(0, |written| written.bytes),
        "write_verified": written.map(|written| written.flushed && written.verified && host_verified == Some(true)),
    })
}

/// What the cache before a disk did when that was read whole, and its beginning again.
pub fn cached(cached: &Cached) -> Value {
    json!({
        "event": "cached",
        "name": cached.name,
        "bytes": cached.bytes,
        "sha256": cached.sha256,
        "milliseconds": round(cached.nanoseconds as f64 / 1e6),
        "hits": cached.hits,
        "misses": cached.misses,
        "evictions": cached.evictions,
        "requests": cached.reads,
        "pages_read": cached.pages_read,
        "ahead": cached.ahead,
        "ahead_used": cached.ahead_used,
        "ahead_wasted": cached.ahead_wasted,
        "ahead_efficiency_percent": cached.ahead_efficiency(),
        "again_bytes": cached.again_bytes,
        "again_hits": cached.again_hits,
        "again_misses": cached.again_misses,
        "hit_rate_percent": cached.hit_rate(),
    })
}

/// The files of a file system, against the list in its root.
pub fn files(files: &Files) -> Value {
    json!({
        "event": "files",
        "name": files.name,
        "partition": files.partition,
        "system": files.system,
        "through": files.through,
        "files": files.files,
        "directories": files.directories,
        "bytes": files.bytes,
        "checked": files.checked,
        "wrong": files.wrong,
        "list_sha256": files.list_sha256,
        "milliseconds": round(files.nanoseconds as f64 / 1e6),
    })
}

/// Files that were written through the cache, synced, and found on the device.
pub fn stored(stored: &Stored) -> Value {
    json!({
        "event": "stored",
        "name": stored.name,
        "partition": stored.partition,
        "files": stored.files,
        "bytes": stored.bytes,
    })
}

/// Reading in order through the cache, beside the device itself.
pub fn sequential(row: &Sequential) -> Value {
    json!({
        "event": "sequential",
        "name": row.name,
        "block_bytes": row.block_bytes,
        "cache_mib_s": row.cache_mib_s,
        "device_mib_s": row.device_mib_s,
        "device_deep_mib_s": row.device_deep_mib_s,
        "of_device": row.of_device_permille as f64 / 1e3,
        "of_device_deep": row.of_device_deep_permille as f64 / 1e3,
    })
}

pub fn speed(row: &Speed) -> Value {
    json!({
        "event": "speed",
        "name": row.name,
        "op": row.op,
        "block_bytes": row.block_bytes,
        "depth": row.depth,
        "iops": row.iops.round() as u64,
        "mib_s": row.mib_s,
        "p50_us": row.p50_us,
        "p99_us": row.p99_us,
    })
}

/// Cycles from an interrupt to its handler, its bottom half and a task that waits for that.
pub fn latency(latency: &Latency) -> Value {
    json!({
        "event": "latency",
        "rounds": latency.rounds,
        "handler_p50": latency.handler_p50,
        "handler_p99": latency.handler_p99,
        "bottom_half_p50": latency.bottom_half_p50,
        "bottom_half_p99": latency.bottom_half_p99,
        "task_p50": latency.task_p50,
        "task_p99": latency.task_p99,
    })
}

/// What a domain of Xen asked of the hypervisor while its disks were in use.
pub fn xen(xen: &Xen) -> Value {
    json!({
        "event": "xen",
        "notifications": xen.notifications,
        "granted": xen.granted,
        "revoked": xen.revoked,
    })
}

/// What interrupts a CPU took.
pub fn cpu(cpu: &Cpu) -> Value {
    json!({
        "event": "cpu",
        "cpu": cpu.cpu,
        "device_interrupts": cpu.device_interrupts,
        "alarms": cpu.alarms,
        "kicks": cpu.kicks,
    })
}

/// What a heap holds at the end, and how much more that is than at the beginning.
pub fn heap(heap: &Heap) -> Value {
    json!({
        "event": "heap",
        "heap": heap.heap,
        "live_blocks": heap.live_blocks,
        "live_bytes": heap.live_bytes,
        "leaked_blocks": heap.leaked_blocks,
        "leaked_bytes": heap.leaked_bytes,
        "allocations": heap.allocations,
        "failures": heap.failures,
    })
}

/// What is kept for write-back.
pub fn reserve(reserve: &Reserve) -> Value {
    json!({
        "event": "reserve",
        "frames_bytes": reserve.frames_bytes,
        "heap_bytes": reserve.heap_bytes,
        "used": reserve.used,
    })
}

pub fn summary(session: &Session, failures: &[String]) -> Value {
    json!({
        "event": "summary",
        "result": if failures.is_empty() { "pass" } else { "fail" },
        "failures": failures.len(),
        "allocations_in_io_path": session.end.map(|end| end.allocations_in_io_path),
    })
}

fn round(milliseconds: f64) -> f64 {
    (milliseconds * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::super::session::tests::{A_GOOD_RUN, session};
    use super::*;

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    fn sorted<const N: usize>(mut names: [&str; N]) -> Vec<&str> {
        names.sort_unstable();
        names.to_vec()
    }

    #[test]
    fn events_have_exactly_their_fields() {
        let session = session(A_GOOD_RUN);
        assert_eq!(keys(&boot(1, 2.0)), sorted(["event", "image_bytes", "milliseconds"]));
        let disk_fields = [
            "event",
            "name",
            "driver",
            "controller",
            "capacity_bytes",
            "block_size",
            "queues",
            "interrupts",
            "features",
            "partitions",
            "read_bytes",
            "sha256",
            "sha256_expected",
            "write_bytes",
            "write_verified",
        ];
        assert_eq!(keys(&disk(&session.disks[0], None, None)), sorted(disk_fields));
        let cached_fields = [
            "event",
            "name",
            "bytes",
            "sha256",
            "milliseconds",
            "hits",
            "misses",
            "evictions",
            "requests",
            "pages_read",
            "ahead",
            "ahead_used",
            "ahead_wasted",
            "ahead_efficiency_percent",
            "again_bytes",
            "again_hits",
            "again_misses",
            "hit_rate_percent",
        ];
        let cached_event = cached(session.disks[0].cached.as_ref().unwrap());
        assert_eq!(keys(&cached_event), sorted(cached_fields));
        assert_eq!(
            (&cached_event["hit_rate_percent"], &cached_event["ahead_efficiency_percent"]),
            (&json!(100.0), &json!(99.1))
        );
        let files_fields = [
            "event",
            "name",
            "partition",
            "system",
            "through",
            "files",
            "directories",
            "bytes",
            "checked",
            "wrong",
            "list_sha256",
            "milliseconds",
        ];
        assert_eq!(keys(&files(&session.files[0])), sorted(files_fields));
        assert_eq!(keys(&stored(&session.stored[0])), sorted(["event", "name", "partition", "files", "bytes"]));
        let sequential_fields = [
            "event",
            "name",
            "block_bytes",
            "cache_mib_s",
            "device_mib_s",
            "device_deep_mib_s",
            "of_device",
            "of_device_deep",
        ];
        assert_eq!(keys(&sequential(&session.sequential[0])), sorted(sequential_fields));
        let speed_fields = ["event", "name", "op", "block_bytes", "depth", "iops", "mib_s", "p50_us", "p99_us"];
        assert_eq!(keys(&speed(&session.speed[0])), sorted(speed_fields));
        let latency_fields = [
            "event",
            "rounds",
            "handler_p50",
            "handler_p99",
            "bottom_half_p50",
            "bottom_half_p99",
            "task_p50",
            "task_p99",
        ];
        assert_eq!(keys(&latency(&session.latency.unwrap())), sorted(latency_fields));
        assert_eq!(keys(&cpu(&session.cpus[0])), sorted(["event", "cpu", "device_interrupts", "alarms", "kicks"]));
        let heap_fields =
            ["event", "heap", "live_blocks", "live_bytes", "leaked_blocks", "leaked_bytes", "allocations", "failures"];
        assert_eq!(keys(&heap(&session.heaps[0])), sorted(heap_fields));
        let reserve_fields = ["event", "frames_bytes", "heap_bytes", "used"];
        assert_eq!(keys(&reserve(&session.reserve.unwrap())), sorted(reserve_fields));
        let summary_fields = ["event", "result", "failures", "allocations_in_io_path"];
        assert_eq!(keys(&summary(&session, &[])), sorted(summary_fields));
    }

    #[test]
    fn values_come_from_where_they_should() {
        let session = session(A_GOOD_RUN);
        let value = disk(&session.disks[0], None, Some(true));
        assert_eq!((&value["read_bytes"], &value["write_bytes"]), (&json!(1_048_576), &json!(8192)));
        assert_eq!(value["sha256"], "aa");
        assert_eq!(value["partitions"][0]["first_byte"], 4096);
        assert_eq!(speed(&session.speed[0])["op"], "read");
        assert_eq!(speed(&session.speed[0])["p50_us"], 3.5);
    }

    #[test]
    fn writes_count_as_verified_only_with_the_hosts_word() {
        let session = session(A_GOOD_RUN);
        for (host, wanted) in [(Some(true), true), (Some(false), false), (None, false)] {
            assert_eq!(disk(&session.disks[0], None, host)["write_verified"], wanted);
        }
    }

    #[test]
    fn the_summary_fails_with_any_failure() {
        let session = session(A_GOOD_RUN);
        assert_eq!(summary(&session, &[])["result"], "pass");
        let failed = summary(&session, &["x".into(), "y".into()]);
        assert_eq!((&failed["result"], &failed["failures"]), (&json!("fail"), &json!(2)));
    }
}
