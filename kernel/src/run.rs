//! All phases in order. Task context.

use alloc::vec::Vec;
use core::time::Duration;

use undercroft_block::Features;
use undercroft_block::queue::{Config, Rung};
use undercroft_hal::{Instant, Task, cpu, heap, irq};

use crate::cached::{self, Pages, pass, sequential};
use crate::disks::{self, Disk, Disks, MmioWindow};
use crate::heaps::Baseline;
use crate::hyperv;
use crate::json::{Object, Value};
use crate::monitor::{self, Port};
use crate::options::{BadWord, Options};
use crate::report::Report;
use crate::xen::Xen;
use crate::{account, bare, faults, files, latency, power, speed, sync, verify, write};

/// The machine, for the first line.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// Hypervisor and firmware.
    pub name: &'a str,
    /// CPUs that take part.
    pub cpus: u64,
    /// Bytes of RAM.
    pub memory: u64,
    /// What tells the time.
    pub clock: &'a str,
    /// What raises the alarm.
    pub timer: &'a str,
    /// Where virtio devices lie on the memory bus.
    pub windows: &'a [MmioWindow],
    /// Takes Hyper-V's interface into use, where there is one.
    pub hyperv: hyperv::Start,
    /// What the heaps held before.
    pub baseline: Baseline,
    /// Xen, where this is a domain of it.
    pub xen: Option<&'a Xen>,
    /// Where people type, if they can.
    pub port: Option<Port>,
}

/// Runs what the options say. `true` if nothing failed. `entry` is when the image was entered.
pub fn run(
    cx: &Task,
    machine: &Machine<'_>,
    (options, bad): &(Options, Vec<BadWord>),
    entry: Instant,
    report: &Report,
) -> bool {
    hello(machine, report);
    for word in bad {
        report.problem(word, None);
    }
    if options.workload.bare {
        bare::measure(cx, options.speed_ms, options.seed, report);
    }
    let mut first = true;
    let config = (queue_config(options), Pages::new(machine.memory));
    let places = (machine.windows, machine.xen, machine.hyperv);
    let mut disks = disks::find(cx, places, config, report, || {
        if core::mem::take(&mut first) {
            first_io(entry, report);
        }
    });
    for disk in &disks.list {
        disks::describe(cx, disk, report);
    }
    missing(&disks.list, options, report);
    let before = machine.xen.map(Xen::counts);
    if options.workload.speed {
        latency::phase(cx, report);
    }
    let mut requests = 0;
    for disk in disks.list.iter().filter(|_| !options.workload.faults && !options.workload.power) {
        requests += phases(cx, disk, &disks, options, report);
    }
    if options.workload.faults {
        requests += faults::run(cx, &mut disks, options, report);
    }
    if options.workload.power {
        requests += power::run(cx, &disks.list, options, report);
    }
    if let (Some(xen), Some(before)) = (machine.xen, before) {
        xen.tell(before, report);
    }
    if options.monitor {
        match machine.port {
            Some(port) => monitor::serve(cx, machine, &mut disks, options, report, port),
            None => report.problem(&"there is no serial port for the monitor", None),
        }
    }
    if !options.workload.faults {
        sync::all(cx, &disks.list, report);
    }
    // Their queues and buffers go with them.
    let vmbus = disks.vmbus.take();
    disks.leave(cx, report);
    hyperv::leave(cx, vmbus, report);
    machine.baseline.check(cx, report);
    interrupts(cx, report);
    end(requests, entry, report);
    report.failures() == 0
}

/// How the disks' queues behave.
fn queue_config(options: &Options) -> Config {
    let default = Config::default();
    options.deadline_ms.map(Duration::from_millis).map_or(default, |deadline| {
        let mut rungs = [deadline; Rung::ALL.len()];
        // Some hosts stand still while they reset one controller, and all others with it.
        rungs[Rung::Controller as usize] = deadline * 10;
        Config { timeout: deadline, rungs, ..default }
    })
}

fn hello(machine: &Machine<'_>, report: &Report) {
    let version = env!("CARGO_PKG_VERSION");
    if !report.is_json() {
        report.text(format_args!(
            "Undercroft {version} on {}: {} CPUs, {} MiB, clock {}, timer {}",
            machine.name,
            machine.cpus,
            machine.memory >> 20,
            machine.clock,
            machine.timer
        ));
        return;
    }
    report.json(&Object {
        event: Some("hello"),
        fields: &[
            ("machine", Value::Text(&machine.name)),
            ("cpus", Value::Number(machine.cpus)),
            ("memory_bytes", Value::Number(machine.memory)),
            ("clock", Value::Text(&machine.clock)),
            ("timer", Value::Text(&machine.timer)),
            ("version", Value::Text(&version)),
        ],
    });
}

fn first_io(entry: Instant, report: &Report) {
    let nanos = entry.elapsed().as_nanos() as u64;
    if report.is_json() {
        report.json(&Object { event: Some("first_io"), fields: &[("nanoseconds", Value::Number(nanos))] });
    } else {
        report.text(format_args!("first I/O after {} us", nanos / 1000));
    }
}

/// Reports disks that the options name or count and that were not found.
fn missing(disks: &[Disk], options: &Options, report: &Report) {
    if let Some(expected) = options.expected_disks
        && (disks.len() as u64) < u64::from(expected)
    {
        report.problem(&format_args!("{} of {expected} disks were found", disks.len()), None);
    }
    for rule in &options.disks {
        if !disks.iter().any(|disk| disk.device.identity().serial == rule.serial) {
            report.problem(&"no disk with this serial number was found", Some(&rule.serial));
        }
    }
}

/// One disk through its phases. The pattern comes last, so that it is what stays in the region.
fn phases(cx: &Task, disk: &Disk, disks: &Disks, options: &Options, report: &Report) -> u64 {
    let serial = &disk.device.identity().serial;
    let rule = options.disks.iter().find(|rule| rule.serial == *serial);
    let writable = rule.and_then(|rule| rule.writable);
    if writable.is_some() && disk.device.info().features.contains(Features::READ_ONLY) {
        report.problem(&"the disk is to be written, and is read only", Some(&disk.name));
        return 0;
    }
    let mut requests = 0;
    if options.workload.verify {
        let read = read_phase(cx, disk, report);
        // A disk that cannot be read is not written, and one message is enough.
        if !read
            || !disk.volume.as_ref().is_none_or(|volume| pass::phase(cx, disk, volume, disks.pages.share(cx), report))
        {
            return 0;
        }
        files::phase(cx, disk, options, report);
    }
    if options.workload.speed {
        match speed::measure(cx, disk, writable, (options.speed_ms, options.seed), report) {
            Ok(count) => requests += count,
            Err(error) => {
                report.problem(&format_args!("the speed phase failed: {error}"), Some(&disk.name));
                return requests;
            }
        }
        if let Some(volume) = &disk.volume
            && let Err(error) = sequential::measure(cx, disk, volume, (options.speed_ms, disks.pages.share(cx)), report)
        {
            report.problem(&format_args!("the speed phase failed: {error}"), Some(&disk.name));
            return requests;
        }
    }
    if let (true, Some(region)) = (options.workload.verify, writable) {
        write_phase(cx, disk, region, options.seed, report);
    }
    if let Some((start, length)) = writable {
        cached::forget(cx, disk, start..start + length, report);
    }
    requests
}

fn read_phase(cx: &Task, disk: &Disk, report: &Report) -> bool {
    let start = Instant::now();
    let sum = match verify::read_whole(cx, disk, report) {
        Ok(sum) => sum,
        Err(error) => {
            report.problem(&format_args!("reading the disk failed: {error}"), Some(&disk.name));
            return false;
        }
    };
    let nanos = start.elapsed().as_nanos() as u64;
    if report.is_json() {
        report.json(&Object {
            event: Some("read"),
            fields: &[
                ("name", Value::Text(&disk.name)),
                ("bytes", Value::Number(disk.device.info().bytes())),
                ("sha256", Value::Text(&sum)),
                ("nanoseconds", Value::Number(nanos)),
            ],
        });
    } else {
        report.text(format_args!("  {} sha256 {sum}", disk.name));
    }
    true
}

fn write_phase(cx: &Task, disk: &Disk, region: (u64, u64), seed: u64, report: &Report) {
    let written = match write::write_phase(cx, disk, region, seed, report) {
        Ok(written) => written,
        Err(error) => {
            report.problem(&format_args!("writing the disk failed: {error}"), Some(&disk.name));
            return;
        }
    };
    if !written.verified {
        report.problem(&"what was written reads back differently", Some(&disk.name));
    }
    if report.is_json() {
        report.json(&Object {
            event: Some("written"),
            fields: &[
                ("name", Value::Text(&disk.name)),
                ("start", Value::Number(region.0)),
                ("bytes", Value::Number(region.1)),
                ("flushed", Value::Bool(written.flushed)),
                ("verified", Value::Bool(written.verified)),
            ],
        });
    } else if written.verified {
        report.text(format_args!("  {} wrote, flushed and verified {} MiB", disk.name, region.1 >> 20));
    }
}

/// What interrupts came to each CPU, and which lines had to be masked.
fn interrupts(cx: &Task, report: &Report) {
    while let Some(storm) = irq::storm(cx) {
        let (line, unclaimed) = (storm.line.number, storm.unclaimed);
        report.problem(
            &format_args!("interrupt line {line} was masked after {unclaimed} interrupts that no device claimed"),
            None,
        );
    }
    for cpu in 0..cpu::count() {
        let taken = irq::taken(cpu);
        if !report.is_json() {
            let irq::Taken { device, alarm, kick } = taken;
            report.text(format_args!("CPU {cpu}: interrupts of devices {device}, of its timer {alarm}, kicks {kick}"));
            continue;
        }
        report.json(&Object {
            event: Some("cpu"),
            fields: &[
                ("cpu", Value::Number(cpu as u64)),
                ("device_interrupts", Value::Number(taken.device)),
                ("alarms", Value::Number(taken.alarm)),
                ("kicks", Value::Number(taken.kick)),
            ],
        });
    }
}

fn end(requests: u64, entry: Instant, report: &Report) {
    let forbidden = heap::stats().in_hard_irq;
    if forbidden > 0 {
        report.problem(&format_args!("{forbidden} allocations in hard interrupts"), None);
    }
    let (failures, allocations) = (report.failures(), account::allocations());
    if !report.is_json() {
        let result = if failures == 0 { "all held" } else { "FAILED" };
        report.text(format_args!("{result}: {failures} failures, {allocations} allocations in the I/O path"));
        return;
    }
    report.json(&Object {
        event: Some("end"),
        fields: &[
            ("failures", Value::Number(failures)),
            ("allocations_in_io_path", Value::Number(allocations)),
            ("requests", Value::Number(requests)),
            ("nanoseconds", Value::Number(entry.elapsed().as_nanos() as u64)),
        ],
    });
}
