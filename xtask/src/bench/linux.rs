//! `cargo xtask bench linux`: 4 KiB random reads by our image and by Debian's Linux (O_DIRECT,
//! native asynchronous I/O, no I/O scheduler), in turn, in the same QEMU: TCG, one processor,
//! pinned to one processor of the host, disks that cost nothing (null-co), interrupts. Beside them what
//! the controller itself can do: our image's ring without drivers and block layer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::initramfs;
use super::ratio::Spread;
use crate::cli::{BenchLinuxOptions, Machine};
use crate::disk::option::Bus;
use crate::disk::{Backend, Disk};
use crate::host::{install, interrupt, program, workspace};
use crate::image::build::{self, Image};
use crate::linux::debian::{self, Debian};
use crate::qemu::arguments::Vm;
use crate::qemu::process::{self, Exit, Limits};
use crate::report::text::table;
use crate::report::voice::Voice;
use crate::run::boot::pinned;

/// Where a figure belongs: the disk's driver and the depth.
type Point = (&'static str, u64);
/// Requests a second.
type Figures = BTreeMap<Point, f64>;

const DRIVERS: [&str; 3] = ["virtio-blk", "virtio-scsi", "pvscsi"];
const DEPTHS: [u64; 2] = [1, 32];
/// What is aimed at, in times Linux, at each depth.
const TARGETS: [(u64, f64); 2] = [(1, 1.6), (32, 3.5)];
/// What of the bare ring is aimed at, at depth 32.
const OF_BARE: f64 = 0.5;

/// What one round measured. The bare ring is there for controllers that have one.
struct Round {
    ours: Figures,
    bare: Figures,
    linux: Figures,
}

/// Everything both sides have in common, and each side's own.
struct Bench {
    qemu: PathBuf,
    host_cpu: u32,
    disks: Vec<Disk>,
    image: Image,
    speed_ms: u32,
    debian: Debian,
    initramfs: PathBuf,
}

/// Runs the command; false if the target was missed.
pub fn command(options: &BenchLinuxOptions) -> Result<bool> {
    let voice = Voice { json: options.json };
    interrupt::watch();
    install::tools(install::QEMU.iter().chain(&install::LINUX_BENCH))?;
    let directory = workspace::scratch()?;
    let image = build::build(None, directory.path())?;
    let debian = debian::fetch()?;
    let initramfs = initramfs::build(directory.path(), &debian, options.speed_ms)?;
    let bench = Bench {
        qemu: program::find("qemu-system-x86_64")?,
        host_cpu: options.host_cpu,
        disks: vec![
            null_disk(Bus::VirtioBlk, "null-blk"),
            null_disk(Bus::VirtioScsi, "null-scsi"),
            null_disk(Bus::Pvscsi, "null-pvscsi"),
        ],
        image,
        speed_ms: options.speed_ms,
        debian,
        initramfs,
    };
    voice.say(&format!(
        "{} rounds of ours and {}, in turn, on host CPU {}",
        options.rounds, bench.debian.package, options.host_cpu
    ));
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        interrupt::check()?;
        let ((ours, bare), linux) = if round % 2 == 1 {
            let ours = bench.ours()?;
            (ours, bench.linux()?)
        } else {
            let linux = bench.linux()?;
            (bench.ours()?, linux)
        };
        voice.say(&format!("round {round}: {}", round_text(&ours, &linux)));
        rounds.push(Round { ours, bare, linux });
    }
    report(voice, &rounds)
}

fn null_disk(bus: Bus, serial: &str) -> Disk {
    Disk {
        label: serial.into(),
        backend: Backend::Null,
        serial: serial.into(),
        bus,
        block_size: 512,
        bytes: 1 << 30,
        writable: None,
        files: None,
    }
}

impl Bench {
    /// Our image's figures, and the bare rings'.
    fn ours(&self) -> Result<(Figures, Figures)> {
        let mut line = format!("console=json workload=bench speed_ms={} disks={}", self.speed_ms, self.disks.len());
        for disk in &self.disks {
            line += &format!(" disk={},ro", disk.serial);
        }
        let mut session = crate::report::session::Session::default();
        let exit = self.boot(&self.image.stripped, None, &line, |line, at| drop(session.take(line, at)))?;
        ensure!(
            exit == Exit::Status(33) && session.problems.is_empty(),
            "our image failed: {exit:?} {} {}",
            session.problems.join("; "),
            session.screen.iter().cloned().collect::<Vec<_>>().join("\n")
        );
        let mut figures = Figures::new();
        for row in session.speed.iter().filter(|row| row.op == "read" && row.block_bytes == 4096) {
            let driver = session.disks.iter().find(|seen| seen.found.name == row.name).map(|seen| &seen.found.driver);
            if let Some(driver) = DRIVERS.into_iter().find(|name| driver.is_some_and(|driver| driver == name)) {
                figures.insert((driver, row.depth), row.iops);
            }
        }
        let known = |driver: &str| DRIVERS.into_iter().find(|name| *name == driver);
        let bare = session.bare.iter().filter_map(|row| Some(((known(&row.driver)?, row.depth), row.iops)));
        Ok((complete(figures, "our image")?, bare.collect()))
    }

    fn linux(&self) -> Result<Figures> {
        let line = "console=ttyS0 quiet panic=-1 mitigations=off";
        let (mut figures, mut said) = (Figures::new(), String::new());
        let exit = self.boot(&self.debian.kernel, Some(&self.initramfs), line, |line, _| match result(line) {
            Some((point, iops)) => drop(figures.insert(point, iops)),
            None => said += &format!("{line}\n"),
        })?;
        if exit != Exit::Status(0) {
            bail!("Linux failed: {exit:?}\n{said}");
        }
        complete(figures, "Linux").with_context(|| said)
    }

    fn boot(
        &self,
        kernel: &Path,
        initrd: Option<&Path>,
        command_line: &str,
        on_line: impl FnMut(&str, Duration),
    ) -> Result<Exit> {
        let vm = Vm {
            machine: Machine::Pc,
            cpus: 1,
            memory_mib: 1024,
            kernel,
            initrd,
            command_line,
            disks: &self.disks,
            extra: &[],
        };
        let mut command = pinned(&self.qemu, Some(self.host_cpu))?;
        command.args(vm.arguments()?);
        let limits = Limits { whole: Duration::from_secs(180), silence: Duration::from_secs(60) };
        let outcome = process::run(&mut command, limits, on_line, || {})?;
        ensure!(outcome.stderr.is_empty(), "QEMU said: {}", outcome.stderr);
        Ok(outcome.exit)
    }
}

/// A line `RESULT DEVICE DEPTH REQUESTS NANOSECONDS` of the Linux side.
fn result(line: &str) -> Option<(Point, f64)> {
    let words: Vec<&str> = line.strip_prefix("RESULT ")?.split_whitespace().collect();
    let [device, depth, requests, nanoseconds] = words[..] else { return None };
    let driver = match device {
        "/dev/vda" => DRIVERS[0],
        "/dev/sda" => DRIVERS[1],
        "/dev/sdb" => DRIVERS[2],
        _ => return None,
    };
    let (requests, nanoseconds): (f64, f64) = (requests.parse().ok()?, nanoseconds.parse().ok()?);
    Some(((driver, depth.parse().ok()?), requests / nanoseconds * 1e9))
}

fn points() -> impl Iterator<Item = Point> {
    DRIVERS.into_iter().flat_map(|driver| DEPTHS.map(|depth| (driver, depth)))
}

fn complete(figures: Figures, who: &str) -> Result<Figures> {
    for (driver, depth) in points() {
        ensure!(figures.contains_key(&(driver, depth)), "{who} did not measure {driver} at depth {depth}");
    }
    Ok(figures)
}

fn round_text(ours: &Figures, linux: &Figures) -> String {
    let one = |point: Point| format!("{} depth {}: {:.2}", point.0, point.1, ours[&point] / linux[&point]);
    points().map(one).collect::<Vec<_>>().join(", ")
}

fn report(voice: Voice, rounds: &[Round]) -> Result<bool> {
    let head = ["disk", "depth", "ours IOPS", "Linux IOPS", "ratio min", "median", "max", "bare ring", "of it"];
    let head = head.map(String::from);
    let mut rows = vec![head];
    let (mut good, mut good_of_bare) = ([true; TARGETS.len()], true);
    for point in points() {
        let spread = |value: &dyn Fn(&Round) -> f64| {
            Spread::of(&rounds.iter().map(value).collect::<Vec<_>>()).context("no round was run")
        };
        let ours = spread(&|round| round.ours[&point])?;
        let linux = spread(&|round| round.linux[&point])?;
        let ratio = spread(&|round| round.ours[&point] / round.linux[&point])?;
        let each = |value: &dyn Fn(&Round, f64) -> f64| {
            let values = rounds.iter().filter_map(|round| Some(value(round, *round.bare.get(&point)?)));
            Spread::of(&values.collect::<Vec<_>>()).map(|spread| spread.median)
        };
        let (bare, of_bare) = (each(&|_, bare| bare), each(&|round, bare| round.ours[&point] / bare));
        for (good, (depth, target)) in good.iter_mut().zip(TARGETS) {
            *good &= point.1 != depth || ratio.median >= target;
        }
        good_of_bare &= point.1 != 32 || of_bare.is_none_or(|of_bare| of_bare >= OF_BARE);
        rows.push([
            point.0.into(),
            point.1.to_string(),
            format!("{:.0}", ours.median),
            format!("{:.0}", linux.median),
            format!("{:.2}", ratio.min),
            format!("{:.2}", ratio.median),
            format!("{:.2}", ratio.max),
            bare.map_or("-".into(), |bare| format!("{bare:.0}")),
            of_bare.map_or("-".into(), |of_bare| format!("{of_bare:.2}")),
        ]);
        voice.event(&json!({
            "event": "ratio", "driver": point.0, "depth": point.1, "rounds": rounds.len(),
            "ours_iops": ours.median.round(), "linux_iops": linux.median.round(),
            "min": ratio.min, "median": ratio.median, "max": ratio.max,
            "bare_iops": bare.map(f64::round), "of_bare": of_bare,
        }));
    }
    table(&rows, 1).iter().for_each(|line| voice.say(line));
    let verdict = |good| if good { "reached" } else { "MISSED" };
    for (good, (depth, target)) in good.into_iter().zip(TARGETS) {
        voice.say(&format!("at least {target} times Linux at depth {depth}: {}", verdict(good)));
    }
    voice.say(&format!("at least {OF_BARE} of the bare ring at depth 32: {}", verdict(good_of_bare)));
    Ok(good == [true; TARGETS.len()] && good_of_bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_linux_are_read() {
        assert_eq!(result("RESULT /dev/vda 32 20000 200000000"), Some((("virtio-blk", 32), 100_000.0)));
        assert_eq!(result("RESULT /dev/sda 1 10 1000000000"), Some((("virtio-scsi", 1), 10.0)));
        assert_eq!(result("RESULT /dev/sdb 1 10 1000000000"), Some((("pvscsi", 1), 10.0)));
        assert_eq!(result("RESULT /dev/sdc 1 10 1000000000"), None);
        assert_eq!(result("RESULT /dev/sda 1 10"), None);
    }

    #[test]
    fn a_figure_that_is_missing_is_an_error() {
        let all: Figures = points().map(|point| (point, 1.0)).collect();
        assert!(complete(all.clone(), "x").is_ok());
        for point in points() {
            let mut fewer = all.clone();
            fewer.remove(&point);
            assert!(complete(fewer, "x").is_err());
        }
    }

    #[test]
    fn each_depth_has_its_target_for_every_disk() {
        let figures =
            |at_1: f64, at_32: f64| points().map(|p| (p, if p.1 == 32 { at_32 } else { at_1 })).collect::<Figures>();
        let voice = Voice { json: true };
        let round = |at_32, bare: &[(Point, f64)]| {
            [Round { ours: figures(1.6, at_32), bare: bare.iter().copied().collect(), linux: figures(1.0, 1.0) }]
        };
        assert!(report(voice, &round(3.5, &[])).unwrap());
        assert!(!report(voice, &round(3.4, &[])).unwrap());
        let slow_at_1 = [Round { ours: figures(1.5, 4.0), bare: Figures::new(), linux: figures(1.0, 1.0) }];
        assert!(!report(voice, &slow_at_1).unwrap());
        // And half of the bare ring, where there is one.
        assert!(report(voice, &round(3.5, &[(("virtio-blk", 32), 7.0), (("virtio-blk", 1), 100.0)])).unwrap());
        assert!(!report(voice, &round(3.5, &[(("virtio-blk", 32), 7.1)])).unwrap());
    }
}
