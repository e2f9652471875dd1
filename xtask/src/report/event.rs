//! The JSON Lines of the image (`docs/console-protocol.md`).

use serde::{Deserialize, Serialize};

/// One line of the image's.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Hello(Hello),
    FirstIo {
        #[serde(rename = "nanoseconds")]
        _nanoseconds: u64,
    },
    Found(Found),
    Progress {
        name: String,
        phase: String,
        done_bytes: u64,
        total_bytes: u64,
    },
    Read {
        name: String,
        bytes: u64,
        sha256: String,
        nanoseconds: u64,
    },
    Cached(Cached),
    Sequential(Sequential),
    Files(Files),
    Stored(Stored),
    Written {
        name: String,
        start: u64,
        bytes: u64,
        flushed: bool,
        verified: bool,
    },
    Speed(Speed),
    Bare(Bare),
    Faults(Faults),
    /// A worker's generation is durable, by the serial number of its disk.
    Ack {
        disk: String,
        worker: u64,
        generation: u64,
    },
    /// What a disk's queue did, by its serial number.
    Queue {
        disk: String,
        accepted: u64,
        completed: u64,
        merged: u64,
    },
    Latency(Latency),
    Xen(Xen),
    Cpu(Cpu),
    Heap(Heap),
    Reserve(Reserve),
    Device {
        driver: String,
        controller: String,
        detail: String,
    },
    Problem {
        what: String,
        #[serde(default)]
        disk: Option<String>,
    },
    End(End),
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Hello {
    pub machine: String,
    pub cpus: u64,
    pub memory_bytes: u64,
    pub clock: String,
    pub timer: String,
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Found {
    pub name: String,
    pub serial: String,
    pub driver: String,
    pub controller: String,
    pub capacity_bytes: u64,
    pub block_size: u64,
    pub physical_block_size: u64,
    pub queues: u64,
    pub queue_depth: u64,
    pub interrupts: String,
    pub features: Vec<String>,
    pub read_only: bool,
    pub partitions: Vec<Partition>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Partition {
    pub index: u64,
    pub kind: String,
    pub name: String,
    pub first_byte: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Speed {
    pub name: String,
    pub op: String,
    pub pattern: String,
    pub block_bytes: u64,
    pub depth: u64,
    #[serde(rename = "requests")]
    pub _requests: u64,
    #[serde(rename = "nanoseconds")]
    pub _nanoseconds: u64,
    pub iops: f64,
    pub mib_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// A disk read whole through its cache, and the beginning again.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Cached {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
    pub nanoseconds: u64,
    pub hits: u64,
    pub misses: u64,
    pub evictions: u64,
    pub reads: u64,
    pub pages_read: u64,
    pub ahead: u64,
    pub ahead_used: u64,
    pub ahead_wasted: u64,
    pub again_bytes: u64,
    pub again_hits: u64,
    pub again_misses: u64,
}

impl Cached {
    /// Of the pages that were read again, those that were there, in percent.
    pub fn hit_rate(&self) -> f64 {
        percent(self.again_hits, self.again_hits + self.again_misses)
    }

    /// Of the pages that were read ahead, those that were used, in percent.
    pub fn ahead_efficiency(&self) -> f64 {
        percent(self.ahead_used, self.ahead)
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    (part as f64 * 1000.0 / whole.max(1) as f64).round() / 10.0
}

/// Reading in order through the cache, beside the device itself.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Sequential {
    pub name: String,
    pub block_bytes: u64,
    pub cache_mib_s: f64,
    pub device_mib_s: f64,
    pub device_deep_mib_s: f64,
    pub of_device_permille: u64,
    pub of_device_deep_permille: u64,
}

/// The files of a file system, against the list in its root.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Files {
    pub name: String,
    pub partition: u64,
    pub system: String,
    /// `cache` or `device`.
    pub through: String,
    pub files: u64,
    pub directories: u64,
    pub bytes: u64,
    pub checked: u64,
    pub wrong: u64,
    pub list_sha256: String,
    pub nanoseconds: u64,
}

/// Files that were written through the cache, synced, and found on the device.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Stored {
    pub name: String,
    pub partition: u64,
    pub files: u64,
    pub bytes: u64,
}

/// What a controller does with nothing between it and the interrupt handler.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Bare {
    pub driver: String,
    pub depth: u64,
    pub iops: f64,
}

/// What became of a disk's requests in the fault workload.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Faults {
    pub name: String,
    pub writes: u64,
    #[serde(rename = "reads")]
    pub _reads: u64,
    pub failed: u64,
    pub mismatches: u64,
    pub longest_ms: u64,
    pub accepted: u64,
    pub completed: u64,
    pub overdue: u64,
    #[serde(rename = "late")]
    pub _late: u64,
    #[serde(rename = "resent")]
    pub _resent: u64,
    #[serde(rename = "orphans")]
    pub _orphans: u64,
    pub read_only: bool,
    pub errors: Vec<String>,
    #[serde(rename = "rungs")]
    pub _rungs: Vec<String>,
    pub places: Vec<String>,
}

/// Cycles from an interrupt to each step behind it.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Latency {
    pub rounds: u64,
    pub handler_p50: u64,
    pub handler_p99: u64,
    pub bottom_half_p50: u64,
    pub bottom_half_p99: u64,
    pub task_p50: u64,
    pub task_p99: u64,
}

/// What a domain of Xen asked of the hypervisor while its disks were in use.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Xen {
    pub notifications: u64,
    pub granted: u64,
    pub revoked: u64,
}

/// What interrupts a CPU took.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Cpu {
    pub cpu: u64,
    pub device_interrupts: u64,
    pub alarms: u64,
    pub kicks: u64,
}

/// What a heap holds at the end, and how much more that is than at the beginning.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Heap {
    pub heap: String,
    pub live_blocks: u64,
    pub live_bytes: u64,
    pub leaked_blocks: u64,
    pub leaked_bytes: u64,
    pub allocations: u64,
    pub failures: u64,
}

/// What is kept for write-back.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Reserve {
    pub frames_bytes: u64,
    pub heap_bytes: u64,
    pub used: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct End {
    pub failures: u64,
    pub allocations_in_io_path: u64,
    pub requests: u64,
    pub nanoseconds: u64,
}

/// A line of the console.
#[derive(Debug, PartialEq)]
pub enum Line {
    Event(Box<Event>),
    /// Begins like an event and is none: the contract is broken.
    Malformed(String),
    Text,
}

/// Tells what a line of the console is.
pub fn parse(line: &str) -> Line {
    if !line.starts_with('{') {
        return Line::Text;
    }
    match serde_json::from_str(line) {
        Ok(event) => Line::Event(Box::new(event)),
        Err(error) => Line::Malformed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(line: &str) -> Event {
        match parse(line) {
            Line::Event(event) => *event,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_event_of_the_protocol_is_understood() {
        for line in crate::report::session::tests::A_GOOD_RUN.lines() {
            event(line);
        }
    }

    #[test]
    fn fields_land_where_they_belong() {
        let line = r#"{"event":"written","name":"vd0","start":1,"bytes":2,"flushed":true,"verified":false}"#;
        let wanted = Event::Written { name: "vd0".into(), start: 1, bytes: 2, flushed: true, verified: false };
        assert_eq!(event(line), wanted);
        let absent = Event::Problem { what: "x".into(), disk: None };
        assert_eq!(event(r#"{"event":"problem","what":"x"}"#), absent);
    }

    #[test]
    fn broken_and_unknown_events_are_not_passed_over() {
        for line in [
            "{",
            r#"{"event":"end"}"#,
            r#"{"event":"later","x":1}"#,
            r#"{"event":"problem"}"#,
            r#"{"event":"end","failures":-1,"allocations_in_io_path":0,"requests":0,"nanoseconds":0}"#,
        ] {
            assert!(matches!(parse(line), Line::Malformed(_)), "{line}");
        }
    }

    #[test]
    fn other_lines_are_text() {
        assert_eq!(parse("panicked at kernel/src/main.rs:1"), Line::Text);
        assert_eq!(parse(""), Line::Text);
    }
}
