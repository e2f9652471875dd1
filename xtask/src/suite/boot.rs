//! The image under QEMU: on each machine every disk is found, read, written and measured.

use anyhow::{Context, Error, Result, ensure};
use clap::ValueEnum;
use serde_json::Value;

use super::guest::{self, Run};
use super::tally::Tally;
use super::{bad_input, files, guest::text, hotplug, monitor, virtio};
use crate::cli::{Machine, On};
use crate::disk::prepare::recipes;
use crate::host::{install, workspace};
use crate::image::build;

/// A boot to try.
struct Case {
    name: &'static str,
    machine: &'static str,
    cpus: u32,
    /// What each virtio disk must have of them.
    queues: u32,
    more: &'static [&'static str],
    /// What each virtio disk must say of its rings.
    features: &'static [&'static str],
}

const CASES: [Case; 12] = [
    Case { name: "q35", machine: "q35", cpus: 2, queues: 2, more: &[], features: &[] },
    Case { name: "pc", machine: "pc", cpus: 2, queues: 2, more: &[], features: &[] },
    // Left alone, beside a disk on its channel.
    Case {
        name: "pc with a CD-ROM drive",
        machine: "pc",
        cpus: 1,
        queues: 1,
        more: &["--qemu-arg=-device", "--qemu-arg=ide-cd,bus=ide.0,unit=1"],
        features: &[],
    },
    Case { name: "microvm", machine: "microvm", cpus: 2, queues: 1, more: &[], features: &[] },
    // The devices are then announced on the command line, as Firecracker does.
    Case {
        name: "microvm without ACPI",
        machine: "microvm",
        cpus: 1,
        queues: 1,
        more: &["--qemu-arg=-machine", "--qemu-arg=acpi=off"],
        features: &[],
    },
    Case { name: "q35 with one processor", machine: "q35", cpus: 1, queues: 1, more: &[], features: &[] },
    Case { name: "q35 with four processors", machine: "q35", cpus: 4, queues: 4, more: &[], features: &[] },
    Case { name: "q35 with eight processors", machine: "q35", cpus: 8, queues: 8, more: &[], features: &[] },
    Case {
        name: "q35 with packed rings",
        machine: "q35",
        cpus: 2,
        queues: 2,
        more: &[
            "--qemu-arg=-global",
            "--qemu-arg=virtio-blk-pci.packed=on",
            "--qemu-arg=-global",
            "--qemu-arg=virtio-scsi-pci.packed=on",
        ],
        features: &["packed"],
    },
    // Devices that have nothing but the legacy interface, behind PCI and on the memory bus.
    Case {
        name: "pc with legacy devices",
        machine: "pc",
        cpus: 2,
        queues: 2,
        more: &[
            "--qemu-arg=-global",
            "--qemu-arg=virtio-blk-pci.disable-modern=on",
            "--qemu-arg=-global",
            "--qemu-arg=virtio-scsi-pci.disable-modern=on",
        ],
        features: &["legacy"],
    },
    Case {
        name: "microvm with legacy devices",
        machine: "microvm",
        cpus: 2,
        queues: 1,
        more: &["--qemu-arg=-global", "--qemu-arg=virtio-mmio.force-legacy=true"],
        features: &["legacy"],
    },
    // Fewer queues than processors, and addresses that are the platform's, which only modern devices know.
    Case {
        name: "q35 with platform addresses and one queue",
        machine: "q35",
        cpus: 2,
        queues: 1,
        more: &[
            "--qemu-arg=-global",
            "--qemu-arg=virtio-blk-pci.iommu_platform=on",
            "--qemu-arg=-global",
            "--qemu-arg=virtio-blk-pci.disable-legacy=on",
            "--qemu-arg=-global",
            "--qemu-arg=virtio-blk-pci.num-queues=1",
            "--qemu-arg=-global",
            "--qemu-arg=virtio-scsi-pci.iommu_platform=on",
            "--qemu-arg=-global",
            "--qemu-arg=virtio-scsi-pci.disable-legacy=on",
            "--qemu-arg=-global",
            "--qemu-arg=virtio-scsi-pci.num_queues=1",
        ],
        features: &["access-platform"],
    },
];

/// Largest image that is still small, stripped.
const IMAGE_LIMIT: u64 = 5 << 18;

pub fn group(tally: &mut Tally) -> Result<()> {
    install::tools(install::QEMU.iter().chain(&install::FILE_SYSTEMS))?;
    let directory = workspace::scratch()?;
    let image = build::build(None, directory.path())?;
    let small = || {
        ensure!(image.bytes <= IMAGE_LIMIT, "it has {} bytes", image.bytes);
        Ok(())
    };
    tally.check("image: no larger than 1.25 MiB stripped", small());
    let kernel = text(&image.whole);
    for case in &CASES {
        boot(case, &kernel, tally)?;
    }
    monitor::checks(&kernel, tally)?;
    files::checks(&kernel, tally)?;
    virtio::checks(&kernel, tally)?;
    hotplug::checks(&kernel, tally)?;
    bad_input::checks(&kernel, tally)
}

fn boot(case: &Case, kernel: &str, tally: &mut Tally) -> Result<()> {
    let cpus = case.cpus.to_string();
    let arguments = [
        "--machine",
        case.machine,
        "--cpus",
        &cpus,
        "--kernel",
        kernel,
        "--disk-size",
        "16",
        "--speed-ms",
        "50",
        "--seed",
        "7",
        "--timeout",
        "240",
    ];
    let run = guest::run(&arguments.iter().chain(case.more).map(|word| (*word).to_owned()).collect::<Vec<_>>())?;
    let name = case.name;
    let whole = if run.success { Ok(()) } else { Err(run.text.clone()) };
    tally.check(&format!("{name}: the run succeeds"), whole);
    tally.check(&format!("{name}: events come in their order"), order(&run));
    tally.check(&format!("{name}: nothing is allocated in the I/O path"), no_allocations(&run));
    tally.check(&format!("{name}: every disk is found"), count(case, &run));
    tally.check(&format!("{name}: what its heaps held is freed, and a reserve is kept"), heaps(&run));
    tally.check(&format!("{name}: all processors take part, and take interrupts of the disks"), processors(case, &run));
    tally.check(&format!("{name}: an interrupt's way to a task is measured"), latency(&run));
    if case.more.iter().any(|word| word.contains("ide-cd")) {
        let told = run.text.contains("left alone");
        let told = if told { Ok(()) } else { Err(Error::msg(run.text.clone())) };
        tally.check(&format!("{name}: the CD-ROM drive is told of and left alone"), told);
    }
    for disk in run.events("disk") {
        let title =
            format!("{name}: {} on {}", disk["name"].as_str().unwrap_or("?"), disk["driver"].as_str().unwrap_or("?"));
        tally.check(&format!("{title}: read whole, with the host's SHA-256"), read(disk));
        tally.check(&format!("{title}: written, found in the guest and by the host"), written(disk));
        tally.check(&format!("{title}: three partitions"), partitions(disk));
        tally.check(&format!("{title}: read through the cache, ahead, and again from it"), cached(&run, disk));
        tally.check(&format!("{title}: the files of ext4 and FAT, and files written to FAT"), stored(&run, disk));
        if is_virtio(disk) {
            let queues = disk["queues"] == case.queues;
            let queues = if queues { Ok(()) } else { Err(Error::msg(disk.to_string())) };
            tally.check(&format!("{title}: queues: {}", case.queues), queues);
        }
        if is_virtio(disk) && !case.features.is_empty() {
            tally.check(&format!("{title}: {} agreed on", case.features.join(" ")), features(disk, case.features));
        }
        tally.check(&format!("{title}: measured"), measured(&run, disk));
    }
    Ok(())
}

fn order(run: &Run) -> Result<()> {
    let names: Vec<_> = run.events.iter().filter_map(|event| event["event"].as_str()).collect();
    ensure!(names.first() == Some(&"boot") && names.last() == Some(&"summary"), "{names:?}");
    Ok(())
}

fn no_allocations(run: &Run) -> Result<()> {
    let summary = run.events("summary").next().cloned().unwrap_or_default();
    ensure!(summary["allocations_in_io_path"] == 0, "{summary}");
    Ok(())
}

/// Each heap is back at what it held when the image began.
fn heaps(run: &Run) -> Result<()> {
    let heaps: Vec<_> = run.events("heap").collect();
    let names: Vec<_> = heaps.iter().filter_map(|heap| heap["heap"].as_str()).collect();
    ensure!(names == ["locked", "dma", "backed"], "{names:?}");
    ensure!(heaps.iter().all(|heap| heap["leaked_blocks"] == 0 && heap["leaked_bytes"] == 0), "{heaps:?}");
    ensure!(heaps.iter().take(2).all(|heap| heap["allocations"].as_u64() > Some(0)), "{heaps:?}");
    let reserve = run.events("reserve").next().cloned().unwrap_or_default();
    ensure!(reserve["frames_bytes"].as_u64() > Some(0) && reserve["heap_bytes"].as_u64() > Some(0), "{reserve}");
    Ok(())
}

/// The disks of every controller that the machine has, with their blocks.
fn count(case: &Case, run: &Run) -> Result<()> {
    let machine = Machine::from_str(case.machine, false).map_err(Error::msg)?;
    let attached = recipes(On::Qemu, machine, &[])?;
    let mut attached: Vec<_> =
        attached.iter().map(|recipe| (recipe.bus.driver(), Some(u64::from(recipe.block_size)))).collect();
    let mut found: Vec<_> =
        run.events("disk").map(|disk| (disk["driver"].as_str().unwrap_or("?"), disk["block_size"].as_u64())).collect();
    attached.sort_unstable();
    found.sort_unstable();
    ensure!(found == attached, "{found:?} are not {attached:?}");
    Ok(())
}

/// Each takes interrupts of disks, if it has a queue of its own.
fn processors(case: &Case, run: &Run) -> Result<()> {
    let taken: Vec<_> = run.events("cpu").map(|cpu| cpu["device_interrupts"].as_u64()).collect();
    ensure!(taken.len() == case.cpus as usize, "{} of {} processors: {taken:?}", taken.len(), case.cpus);
    ensure!(taken.iter().take(case.queues as usize).all(|count| *count > Some(0)), "{taken:?}");
    Ok(())
}

/// The steps come one after the other.
fn latency(run: &Run) -> Result<()> {
    let latency = run.events("latency").next().cloned().unwrap_or_default();
    let cycles = |name: &str| latency[name].as_u64().unwrap_or(0);
    let steps = ["handler", "bottom_half", "task"];
    for percent in ["p50", "p99"] {
        let ways = steps.map(|step| cycles(&format!("{step}_{percent}")));
        ensure!(ways[0] > 0 && ways.is_sorted(), "{latency}");
    }
    Ok(())
}

fn is_virtio(disk: &Value) -> bool {
    disk["driver"].as_str().is_some_and(|driver| driver.starts_with("virtio"))
}

fn read(disk: &Value) -> Result<()> {
    ensure!(disk["read_bytes"] == disk["capacity_bytes"], "{disk}");
    ensure!(disk["sha256"].is_string() && disk["sha256"] == disk["sha256_expected"], "{disk}");
    Ok(())
}

fn written(disk: &Value) -> Result<()> {
    ensure!(disk["write_bytes"].as_u64() > Some(0) && disk["write_verified"] == true, "{disk}");
    Ok(())
}

/// What the driver says of the rings that it agreed on.
fn features(disk: &Value, wanted: &[&str]) -> Result<()> {
    let said = disk["features"].to_string();
    ensure!(wanted.iter().all(|word| said.contains(word)), "{said}");
    Ok(())
}

fn partitions(disk: &Value) -> Result<()> {
    let names: Vec<_> = disk["partitions"].as_array().into_iter().flatten().map(|p| p["name"].clone()).collect();
    ensure!(names == ["ext4", "fat", "undercroft-scratch"], "{names:?}");
    Ok(())
}

/// A sequence is read ahead, and what was just read is there.
fn cached(run: &Run, disk: &Value) -> Result<()> {
    let seen = run.events("cached").find(|event| event["name"] == disk["name"]).context("no event")?;
    ensure!(seen["sha256"] == disk["sha256"] && seen["bytes"] == disk["capacity_bytes"], "{seen}");
    ensure!(seen["hit_rate_percent"] == 100.0 && seen["again_hits"].as_u64() > Some(0), "{seen}");
    let number = |name: &str| seen[name].as_u64().unwrap_or(0);
    ensure!(number("pages_read") * 4096 >= number("bytes"), "{seen}");
    ensure!(number("ahead") > number("pages_read") / 4 && number("ahead_used") > number("ahead") * 3 / 4, "{seen}");
    // Runs of pages, not pages.
    ensure!(number("requests") < number("pages_read") / 8, "{seen}");
    Ok(())
}

fn stored(run: &Run, disk: &Value) -> Result<()> {
    for (system, through) in [("ext4", "cache"), ("ext4", "device"), ("fat", "cache"), ("fat", "device")] {
        let wanted =
            |seen: &&Value| seen["name"] == disk["name"] && seen["system"] == system && seen["through"] == through;
        let seen = run.events("files").find(wanted).with_context(|| format!("{system} through the {through}"))?;
        ensure!(seen["wrong"] == 0 && seen["checked"].as_u64() > Some(14), "{seen}");
    }
    let stored = run.events("stored").find(|event| event["name"] == disk["name"]).context("nothing was stored")?;
    ensure!(stored["files"] == 8, "{stored}");
    Ok(())
}

/// The six rows of the table: 4 KiB at depth 1 and 32 and 128 KiB, read and write; and reading in order through the cache.
fn measured(run: &Run, disk: &Value) -> Result<()> {
    let order = run.events("sequential").find(|event| event["name"] == disk["name"]);
    ensure!(order.is_some_and(|event| event["of_device"].as_f64() > Some(0.0)), "{order:?}");
    let rows: Vec<_> = run.events("speed").filter(|row| row["name"] == disk["name"]).collect();
    for op in ["read", "write"] {
        for (block, depth) in [(4096, Some(1)), (4096, Some(32)), (131_072, None)] {
            let wanted = |row: &&&Value| {
                row["op"] == op && row["block_bytes"] == block && depth.is_none_or(|depth| row["depth"] == depth)
            };
            let iops = rows.iter().find(wanted).and_then(|row| row["iops"].as_f64());
            ensure!(iops > Some(0.0), "no {op} of {block} bytes at depth {depth:?}");
        }
    }
    Ok(())
}
