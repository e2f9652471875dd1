//! What the image has told in one run.

use std::collections::VecDeque;
use std::time::Duration;

use super::event::{
    Bare, Cached, Cpu, End, Event, Faults, Files, Found, Heap, Hello, Latency, Line, Reserve, Sequential, Speed,
    Stored, Xen, parse,
};

/// Everything heard from the image, and when.
#[derive(Default)]
pub struct Session {
    pub hello: Option<Hello>,
    /// From the start of QEMU to the first command to a disk.
    pub first_io: Option<Duration>,
    pub disks: Vec<Seen>,
    pub speed: Vec<Speed>,
    /// Serial numbers, and how many requests were merged.
    pub merged: Vec<(String, u64)>,
    pub sequential: Vec<Sequential>,
    pub files: Vec<Files>,
    pub stored: Vec<Stored>,
    /// What became of each disk in the fault workload.
    pub faults: Vec<Faults>,
    /// Rings without a driver.
    pub bare: Vec<Bare>,
    /// What the image itself called a problem, and what broke the protocol.
    pub problems: Vec<String>,
    pub latency: Option<Latency>,
    pub xen: Option<Xen>,
    pub cpus: Vec<Cpu>,
    pub heaps: Vec<Heap>,
    pub reserve: Option<Reserve>,
    pub end: Option<End>,
    /// The last lines that are text.
    pub screen: VecDeque<String>,
}

/// A disk as the image saw it.
pub struct Seen {
    pub found: Found,
    pub read: Option<ReadWhole>,
    pub cached: Option<Cached>,
    pub written: Option<Written>,
}

pub struct ReadWhole {
    pub bytes: u64,
    pub sha256: String,
    pub nanoseconds: u64,
}

pub struct Written {
    pub start: u64,
    pub bytes: u64,
    pub flushed: bool,
    pub verified: bool,
}

/// Lines of text kept for the last screen.
const SCREEN: usize = 60;

impl Session {
    /// Takes in one line of the console and returns the event in it, if it is one.
    pub fn take(&mut self, line: &str, at: Duration) -> Option<Event> {
        match parse(line) {
            Line::Event(event) => {
                self.fold(&event, at);
                Some(*event)
            }
            Line::Malformed(error) => {
                self.problems.push(format!("the image printed a line that is no event ({error}): {line}"));
                self.show(line);
                None
            }
            Line::Text => {
                self.show(line);
                None
            }
        }
    }

    fn show(&mut self, line: &str) {
        if self.screen.len() == SCREEN {
            self.screen.pop_front();
        }
        self.screen.push_back(line.to_owned());
    }

    fn fold(&mut self, event: &Event, at: Duration) {
        match event.clone() {
            Event::Hello(hello) => self.hello = Some(hello),
            Event::FirstIo { .. } => self.first_io = Some(self.first_io.unwrap_or(at)),
            Event::Found(found) if self.find(&found.name).is_some() => {
                self.problems.push(format!("the image found two disks and named both {}", found.name));
            }
            Event::Found(found) => self.disks.push(Seen { found, read: None, cached: None, written: None }),
            Event::Read { name, bytes, sha256, nanoseconds } => match self.find(&name) {
                Some(seen) => seen.read = Some(ReadWhole { bytes, sha256, nanoseconds }),
                None => self.stranger(&name),
            },
            Event::Written { name, start, bytes, flushed, verified } => match self.find(&name) {
                Some(seen) => seen.written = Some(Written { start, bytes, flushed, verified }),
                None => self.stranger(&name),
            },
            Event::Cached(cached) => match self.find(&cached.name) {
                Some(seen) => seen.cached = Some(cached),
                None => self.stranger(&cached.name),
            },
            Event::Files(files) => self.files.push(files),
            Event::Stored(stored) => self.stored.push(stored),
            Event::Sequential(sequential) => self.sequential.push(sequential),
            Event::Speed(speed) => self.speed.push(speed),
            Event::Queue { disk, accepted, completed, .. } if accepted != completed => {
                self.problems.push(format!("disk {disk}: {accepted} requests, of which {completed} completed"));
            }
            Event::Queue { disk, merged, .. } => self.merged.push((disk, merged)),
            Event::Bare(bare) => self.bare.push(bare),
            Event::Faults(faults) => self.faults.push(faults),
            Event::Problem { what, disk: Some(disk) } => self.problems.push(format!("disk {disk}: {what}")),
            Event::Problem { what, disk: None } => self.problems.push(what),
            Event::Latency(latency) => self.latency = Some(latency),
            Event::Xen(xen) => self.xen = Some(xen),
            Event::Cpu(cpu) => self.cpus.push(cpu),
            Event::Heap(heap) => self.heaps.push(heap),
            Event::Reserve(reserve) => self.reserve = Some(reserve),
            Event::End(end) => self.end = Some(end),
            Event::Progress { .. } | Event::Device { .. } | Event::Ack { .. } => {}
        }
    }

    fn find(&mut self, name: &str) -> Option<&mut Seen> {
        self.disks.iter_mut().find(|seen| seen.found.name == name)
    }

    fn stranger(&mut self, name: &str) {
        self.problems.push(format!("the image spoke of a disk {name} that it had not found"));
    }

    /// The disk with this serial number.
    pub fn by_serial(&self, serial: &str) -> Option<&Seen> {
        self.disks.iter().find(|seen| seen.found.serial == serial)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A run with one disk of 1 MiB and nothing wrong.
    pub const A_GOOD_RUN: &str = r#"{"event":"hello","machine":"QEMU q35, ACPI","cpus":2,"memory_bytes":268435456,"clock":"TSC","timer":"LAPIC","version":"0.1.0"}
{"event":"first_io","nanoseconds":1000}
{"event":"found","name":"vd0","serial":"S1","driver":"virtio-blk","controller":"pci 0:2.0","capacity_bytes":1048576,"block_size":512,"physical_block_size":512,"queues":2,"queue_depth":256,"interrupts":"msi-x:3","features":["FLUSH"],"read_only":false,"partitions":[{"index":1,"kind":"linux","name":"p","first_byte":4096,"bytes":8192}]}
{"event":"progress","name":"vd0","phase":"read","done_bytes":4096,"total_bytes":1048576}
{"event":"read","name":"vd0","bytes":1048576,"sha256":"aa","nanoseconds":5}
{"event":"cached","name":"vd0","bytes":1048576,"sha256":"aa","nanoseconds":6,"hits":192,"misses":64,"evictions":0,"reads":9,"pages_read":256,"ahead":224,"ahead_used":222,"ahead_wasted":0,"again_bytes":524288,"again_hits":128,"again_misses":0}
{"event":"files","name":"vd0","partition":1,"system":"ext4","through":"cache","files":3,"directories":1,"bytes":99,"checked":2,"wrong":0,"list_sha256":"cc","nanoseconds":4}
{"event":"files","name":"vd0","partition":1,"system":"ext4","through":"device","files":3,"directories":1,"bytes":99,"checked":2,"wrong":0,"list_sha256":"cc","nanoseconds":4}
{"event":"files","name":"vd0","partition":2,"system":"fat","through":"cache","files":3,"directories":1,"bytes":99,"checked":2,"wrong":0,"list_sha256":"cc","nanoseconds":4}
{"event":"files","name":"vd0","partition":2,"system":"fat","through":"device","files":11,"directories":2,"bytes":279348,"checked":2,"wrong":0,"list_sha256":"cc","nanoseconds":4}
{"event":"stored","name":"vd0","partition":2,"files":8,"bytes":279249}
{"event":"sequential","name":"vd0","block_bytes":131072,"cache_mib_s":900.0,"device_mib_s":1000.0,"device_deep_mib_s":2000.0,"of_device_permille":900,"of_device_deep_permille":450}
{"event":"speed","name":"vd0","op":"read","pattern":"random","block_bytes":4096,"depth":32,"requests":10,"nanoseconds":20,"iops":500,"mib_s":1.9,"p50_us":3.5,"p99_us":9.0}
{"event":"written","name":"vd0","start":4096,"bytes":8192,"flushed":true,"verified":true}
{"event":"latency","rounds":1000,"handler_p50":1,"handler_p99":2,"bottom_half_p50":3,"bottom_half_p99":4,"task_p50":5,"task_p99":6}
{"event":"heap","heap":"locked","live_blocks":3,"live_bytes":400,"leaked_blocks":0,"leaked_bytes":0,"allocations":50,"failures":0}
{"event":"reserve","frames_bytes":4194304,"heap_bytes":524288,"used":0}
{"event":"cpu","cpu":0,"device_interrupts":7,"alarms":8,"kicks":9}
{"event":"device","driver":"virtio-rng","controller":"pci 0:3.0","detail":"32 bytes"}
{"event":"end","failures":0,"allocations_in_io_path":0,"requests":99,"nanoseconds":1000000}"#;

    pub fn session(lines: &str) -> Session {
        let mut session = Session::default();
        for (ms, line) in (100..).zip(lines.lines()) {
            session.take(line, Duration::from_millis(ms));
        }
        session
    }

    #[test]
    fn a_good_run_is_taken_in() {
        let session = session(A_GOOD_RUN);
        assert_eq!(session.first_io, Some(Duration::from_millis(101)));
        let seen = session.by_serial("S1").unwrap();
        assert_eq!(seen.read.as_ref().unwrap().sha256, "aa");
        assert_eq!(seen.written.as_ref().unwrap().bytes, 8192);
        assert_eq!(session.speed.len(), 1);
        assert_eq!(session.latency.map(|latency| latency.task_p99), Some(6));
        assert_eq!(session.cpus.first().map(|cpu| (cpu.device_interrupts, cpu.kicks)), Some((7, 9)));
        assert_eq!(session.heaps.first().map(|heap| heap.live_bytes), Some(400));
        assert_eq!(session.reserve.map(|reserve| reserve.heap_bytes), Some(524_288));
        assert_eq!(session.problems, [""; 0]);
        assert_eq!(session.end.unwrap().requests, 99);
    }

    #[test]
    fn what_breaks_the_protocol_is_a_problem() {
        let twice = A_GOOD_RUN.lines().nth(2).unwrap();
        for line in [twice, "{broken", r#"{"event":"read","name":"vd9","bytes":1,"sha256":"","nanoseconds":1}"#] {
            let session = session(&format!("{A_GOOD_RUN}\n{line}"));
            assert_eq!(session.problems.len(), 1, "{line}");
        }
    }

    #[test]
    fn only_the_last_lines_of_text_are_kept() {
        let text: String = (0..SCREEN + 5).map(|i| format!("line {i}\n")).collect();
        let session = session(&text);
        assert_eq!(session.screen.front().unwrap(), "line 5");
        assert_eq!(session.screen.len(), SCREEN);
    }
}
