//! The whole image, but for its platform, on the simulated machine: what `docs/console-protocol.md` promises, line by line.

use std::cell::RefCell;
use std::fmt::Arguments;

use crate::heaps::{Baseline, Memory};
use crate::{Report, options, run};
use sha2::{Digest, Sha256};
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::hosted::leaks;
use undercroft_hal::{Instant, Task};
use undercroft_hosts::scsi::{Lun, LunSettings, Target};
use undercroft_hosts::{Config, Disk, Machine, SECTOR, Schedule, virtio};

thread_local!(static OUT: RefCell<String> = const { RefCell::new(String::new()) });

fn print(line: Arguments<'_>) {
    OUT.with(|out| out.borrow_mut().push_str(&line.to_string()));
}

const SECTORS: u64 = 512;

/// The machine's disks: virtio-blk, and LUNs 0, 5 (blocks of 4096) and 300 of a SCSI target.
struct Disks([Disk; 4]);

impl Disks {
    fn new() -> Self {
        Self([1, 2, 3, 4].map(|seed| Disk::patterned(SECTORS, seed)))
    }

    fn plug(&self, machine: &Machine) {
        let [blk, luns @ ..] = &self.0;
        let mut model = virtio::Blk::new(blk.clone());
        model.serial = "blk".into();
        machine.add_virtio_pci(model);
        let unit = |disk: &Disk, serial: &str, block_size| {
            let settings = LunSettings { serial: serial.into(), block_size, ..LunSettings::default() };
            Lun::new(disk.clone(), settings)
        };
        let target = Target::new()
            .with(0, unit(&luns[0], "zero", 512))
            .with(5, unit(&luns[1], "five", 4096))
            .with(300, unit(&luns[2], "far", 512));
        machine.add_virtio_pci(virtio::Scsi::new(target));
    }

    fn bytes(&self, at: usize) -> Vec<u8> {
        (0..SECTORS).flat_map(|sector| self.0[at].read_sector(sector)).collect()
    }
}

/// Runs the image with a command line; whether all held, and its console.
fn boot(machine: &std::rc::Rc<Machine>, line: &str) -> (bool, String) {
    boot_after(machine, line, |_| ())
}

/// As [`boot`], after something that the image is to answer for.
fn boot_after(machine: &std::rc::Rc<Machine>, line: &str, before: impl FnOnce(&Task)) -> (bool, String) {
    OUT.with(|out| out.borrow_mut().clear());
    let held = machine.run(|cx| {
        undercroft_timer::timers::start_service(cx);
        let baseline = Baseline::take(Memory::default);
        before(cx);
        let parsed = options::parse(line);
        let report = Report::new(parsed.0.json, print, || ());
        let facts = run::Machine {
            name: "simulated",
            cpus: 1,
            memory: 16 << 20,
            clock: "virtual",
            timer: "virtual",
            windows: &[],
            xen: None,
            hyperv: crate::hyperv::NONE,
            baseline,
            port: None,
        };
        let held = run::run(cx, &facts, &parsed, Instant::now(), &report);
        // Work that is still queued keeps what it works on.
        cx.run_pending();
        held
    });
    (held, OUT.with(|out| out.borrow().clone()))
}

fn machine(schedule: Schedule, seed: u64) -> std::rc::Rc<Machine> {
    Machine::new(Config { ram: 64 << 20, schedule, seed, ..Config::default() })
}

#[test]
fn reads_writes_and_verifies_every_disk() {
    // Without measuring: no time passes while the model's devices are busy, so it would not end.
    let line = "console=json workload=verify seed=9 disks=4 disk=blk,rw,65536,131072 disk=five,rw,0,262144 disk=far,ro";
    for (schedule, seed) in [(Schedule::Lazy, 0), (Schedule::Eager, 0), (Schedule::RANDOM, 1), (Schedule::RANDOM, 2)] {
        let (machine, disks) = (machine(schedule, seed), Disks::new());
        disks.plug(&machine);
        let before: Vec<_> = (0..4).map(|at| disks.bytes(at)).collect();
        let (held, out) = boot(&machine, line);
        assert!(held, "{out}");
        assert!(!out.contains("\"problem\""), "{out}");
        for bytes in &before {
            let sum = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            assert!(out.contains(&sum), "no {sum} in {out}");
        }
        for (event, times) in [
            ("hello", 1),
            ("first_io", 1),
            ("found", 4),
            ("read", 4),
            ("cached", 4),
            ("written", 2),
            ("heap", 3),
            ("end", 1),
        ] {
            assert_eq!(out.matches(&format!("{{\"event\":\"{event}\"")).count(), times, "{event} in {out}");
        }
        assert_eq!(out.matches("\"verified\":true").count(), 2, "{out}");
        assert!(out.contains("lun 300") && out.contains("\"block_size\":4096"), "{out}");
        // The host's own look: outside of what may be written nothing changed, inside everything did.
        for (at, region) in [(0, 65_536..196_608), (1, 0..0), (2, 0..262_144), (3, 0..0)] {
            let after = disks.bytes(at);
            for (sector, (old, new)) in before[at].chunks(SECTOR).zip(after.chunks(SECTOR)).enumerate() {
                assert_eq!(old != new, region.contains(&(sector * SECTOR)), "disk {at} sector {sector}");
            }
        }
        assert_eq!(disks.0[0].volatile_sectors() + disks.0[2].volatile_sectors(), 0, "flushed");
        assert_eq!(machine.live_dma_blocks(), 0, "every buffer is back");
    }
}

#[test]
fn a_disk_that_fails_is_named_and_the_others_go_on() {
    let (machine, disks) = (machine(Schedule::Lazy, 0), Disks::new());
    disks.0[1].set_bad(100);
    disks.plug(&machine);
    let (held, out) = boot(&machine, "console=json workload=verify disks=4");
    assert!(!held);
    assert!(out.contains(r#""what":"reading the disk failed: the medium failed","disk":"virtio-scsi0""#), "{out}");
    assert_eq!(out.matches("{\"event\":\"read\"").count(), 3, "{out}");
    assert!(out.contains("\"failures\":1"), "{out}");
}

#[test]
fn nothing_there_and_bad_words_are_problems() {
    let (held, out) = boot(&machine(Schedule::Lazy, 0), "console=json disks=1 disk=gone,ro colour=red");
    assert!(!held);
    assert_eq!(out.matches("\"problem\"").count(), 3, "{out}");
    assert!(out.contains("\"failures\":3"), "{out}");
    let (held, out) = boot(&machine(Schedule::Lazy, 0), "workload=none");
    assert!(held && out.contains("all held"), "{out}");
}

#[test]
fn a_leak_is_told_and_fails_the_run_control() {
    let (machine, disks) = (machine(Schedule::Lazy, 0), Disks::new());
    disks.plug(&machine);
    let forget = |_: &Task| core::mem::forget(DmaBuf::new(5000, DmaConstraints::ANY));
    let (held, out) = leaks::allowed(|| boot_after(&machine, "console=json workload=none disks=4", forget));
    assert!(!held && out.contains(r#""leaked_blocks":1,"leaked_bytes":5000"#), "{out}");
    assert!(out.contains("1 blocks (5000 bytes) of the dma heap were never freed"), "{out}");
    // Debug builds name the place.
    assert!(out.contains("whole_tests.rs:"), "{out}");
    let (held, out) = boot(&machine, "console=json workload=none disks=4");
    assert!(held && !out.contains("never freed"), "{out}");
}

/// What a disk's cache still holds after the image has ended, if somebody left something there.
fn left_in_the_cache() -> usize {
    let (machine, disks) = (machine(Schedule::Eager, 0), Disks::new());
    disks.plug(&machine);
    for disk in &disks.0 {
        disk.write(8, &[7; SECTOR]).unwrap();
        assert_eq!(disk.volatile_sectors(), 1);
    }
    let (held, out) = boot(&machine, "workload=none");
    assert!(held, "{out}");
    disks.0.iter().map(Disk::volatile_sectors).sum()
}

#[test]
fn p_40_the_last_thing_that_a_disk_is_told_is_to_flush() {
    assert_eq!(left_in_the_cache(), 0);
}

#[test]
fn p_40_the_last_thing_that_a_disk_is_told_is_to_flush_control() {
    crate::sync::leave_out(true);
    let left = left_in_the_cache();
    crate::sync::leave_out(false);
    assert_eq!(left, 4, "the check would see a disk that was not flushed");
}

/// The console of the power workload on a disk behind its queue and one behind a page cache.
fn power(schedule: Schedule, seed: u64, acks: &str) -> (bool, String) {
    let (machine, disks) = (machine(schedule, seed), [5, 6].map(|seed| Disk::patterned(4096, seed)));
    for (disk, serial) in disks.iter().zip(["queue", "cache"]) {
        let mut model = virtio::Blk::new(disk.clone());
        model.serial = serial.into();
        machine.add_virtio_pci(model);
    }
    let regions = "disk=queue,rw,32768,1064960 disk=cache,rw,32768,1064960";
    let line = format!("console=json workload=power generations=12 acks={acks} cached=cache disks=2 {regions}");
    boot(&machine, &line)
}

#[test]
fn the_power_workload_acknowledges_every_generation_in_order() {
    for (schedule, seed) in [(Schedule::Lazy, 0), (Schedule::Eager, 0), (Schedule::RANDOM, 1)] {
        for acks in ["flushed", "unflushed", "early"] {
            let (held, out) = power(schedule, seed, acks);
            assert!(held, "{acks}: {out}");
            for (disk, worker) in [("queue", 0), ("queue", 1), ("cache", 0), ("cache", 1)] {
                let start = format!(r#"{{"event":"ack","disk":"{disk}","worker":{worker},"generation":"#);
                let acked: Vec<_> = out.lines().filter_map(|line| line.strip_prefix(&start)).collect();
                let wanted: Vec<_> = (1..=12).map(|generation| format!("{generation}}}")).collect();
                assert_eq!(acked, wanted, "{acks}");
            }
        }
    }
}

#[test]
fn the_power_workload_tells_of_a_disk_that_fails() {
    let machine = machine(Schedule::Lazy, 0);
    let disk = Disk::patterned(4096, 5);
    (64..2144).for_each(|sector| disk.set_bad(sector));
    let mut model = virtio::Blk::new(disk);
    model.serial = "queue".into();
    machine.add_virtio_pci(model);
    let (held, out) = boot(&machine, "console=json workload=power disk=queue,rw,32768,1064960");
    assert!(!held && !out.contains("\"ack\""), "{out}");
    assert_eq!(out.matches("generation 1 failed: the medium failed").count(), 2, "{out}");
    let (held, out) = boot(&machine, "console=json workload=power disk=queue,rw,32768,4096");
    assert!(!held && out.contains("the region has not the blocks"), "{out}");
}
