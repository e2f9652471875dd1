//! `cargo xtask bench xen`: 4 KiB random reads by our image and by Debian's Linux (O_DIRECT, native asynchronous I/O, no I/O scheduler), in
//! turn, as domains under the same first domain of the real Xen, which serves a disk that costs nothing (null_blk). QEMU's TCG, one
//! processor, pinned to one of the host.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::initramfs;
use super::ratio::Spread;
use crate::cli::BenchXenOptions;
use crate::host::{install, interrupt, workspace};
use crate::image::build;
use crate::linux::debian;
use crate::report::session::Session;
use crate::report::text::table;
use crate::report::voice::Voice;
use crate::xen::domain::{Domain, Vbd, vbd_name};
use crate::xen::lab::{self, End, Lab, Setup};
use crate::xen::machine::IMAGE;

const DEPTHS: [u64; 2] = [1, 32];
/// What is aimed at, in times Linux, at the greater depth.
const TARGET: f64 = 1.5;
/// How long a domain may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// What the first domain calls the disk.
const NULL: &str = "/dev/nullb0";
/// The names of Linux's parts in the first domain.
const KERNEL: &str = "vmlinuz";
const RAMDISK: &str = "ramdisk";

/// Requests a second, at each depth.
type Figures = [f64; DEPTHS.len()];

struct Round {
    ours: Figures,
    linux: Figures,
}

/// Runs the command; false if the target was missed.
pub fn command(options: &BenchXenOptions) -> Result<bool> {
    let voice = Voice { json: options.json };
    interrupt::watch();
    install::tools(install::QEMU.iter().chain(&install::XEN).chain(&install::LINUX_BENCH))?;
    let directory = workspace::scratch()?;
    let image = build::build(None, directory.path())?;
    let debian = debian::fetch()?;
    let ramdisk = initramfs::xen(directory.path(), &debian, options.speed_ms)?;
    let domains = domains(options.speed_ms);
    let setup = Setup {
        cpus: 1,
        domains: &domains,
        files: &[(IMAGE, &image.stripped), (KERNEL, &debian.kernel), (RAMDISK, &ramdisk)],
        drives: &[],
        directory: directory.path(),
        pin: Some(options.host_cpu),
        extra: &[],
    };
    let mut lab = Lab::start(&setup)?;
    lab.shell("spare null_blk bs=4096 gb=1")?;
    voice.say(&format!(
        "{} rounds of ours and {}, in turn, as domains of Xen, on host CPU {}",
        options.rounds, debian.package, options.host_cpu
    ));
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        interrupt::check()?;
        let (ours, linux) = if round % 2 == 1 {
            let ours = ours(&mut lab, &domains[0])?;
            (ours, linux(&mut lab, &domains[1])?)
        } else {
            let linux = linux(&mut lab, &domains[1])?;
            (self::ours(&mut lab, &domains[0])?, linux)
        };
        let ratio = |index: usize| ours[index] / linux[index];
        voice.say(&format!("round {round}: {:.2} at depth 1, {:.2} at depth 32", ratio(0), ratio(1)));
        rounds.push(Round { ours, linux });
    }
    report(voice, &rounds)
}

fn domains(speed_ms: u32) -> [Domain; 2] {
    let disks = vec![Vbd { target: NULL.into(), name: vbd_name(0), writable: true }];
    let ours = Domain {
        name: "ours".into(),
        kernel: lab::path(IMAGE),
        ramdisk: None,
        command_line: format!("console=json workload=bench speed_ms={speed_ms} disks=1 disk=xvda,ro"),
        memory_mib: 64,
        cpus: 1,
        disks: disks.clone(),
    };
    let linux = Domain {
        name: "linux".into(),
        kernel: lab::path(KERNEL),
        ramdisk: Some(lab::path(RAMDISK)),
        command_line: "console=hvc0 quiet panic=-1 mitigations=off".into(),
        memory_mib: 192,
        cpus: 1,
        disks,
    };
    [ours, linux]
}

/// Runs a domain to its end, and hands over each line of its console.
fn run(lab: &mut Lab, domain: &Domain, mut on_line: impl FnMut(&str, Duration)) -> Result<()> {
    let console = lab.begin(domain)?;
    let reader = BufReader::new(console.try_clone()?);
    let start = Instant::now();
    let (sender, lines) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        for line in reader.split(b'\n').map_while(Result::ok) {
            let text: String = String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).collect();
            if sender.send((text, start.elapsed())).is_err() {
                break;
            }
        }
    });
    let end = lab.end(domain, PATIENCE);
    hang_up(&console);
    let _ = thread.join();
    lines.into_iter().for_each(|(line, at)| on_line(&line, at));
    let end = end?;
    ensure!(end == End::PowerOff, "the domain {} ended by {end:?}", domain.name);
    Ok(())
}

/// Ends the reading of a console, on which nothing more comes.
fn hang_up(console: &UnixStream) {
    // What the socket has is on its way already.
    std::thread::sleep(Duration::from_millis(200));
    let _ = console.shutdown(std::net::Shutdown::Both);
}

fn ours(lab: &mut Lab, domain: &Domain) -> Result<Figures> {
    let mut session = Session::default();
    run(lab, domain, |line, at| drop(session.take(line, at)))?;
    ensure!(session.problems.is_empty(), "our image failed: {}", session.problems.join("; "));
    let counts = session.xen.context("our image does not say what it asked of Xen")?;
    ensure!(
        counts.granted == 0 && counts.revoked == 0,
        "{} grants were made and {} taken back on the path of requests",
        counts.granted,
        counts.revoked
    );
    let rows = || session.speed.iter().filter(|row| row.op == "read" && row.block_bytes == 4096);
    figures("our image", |depth| rows().find(|row| row.depth == depth).map(|row| row.iops))
}

fn linux(lab: &mut Lab, domain: &Domain) -> Result<Figures> {
    let (mut results, mut said) = (Vec::new(), String::new());
    run(lab, domain, |line, _| match result(line) {
        Some(result) => results.push(result),
        None => said += &format!("{line}\n"),
    })?;
    figures("Linux", |depth| results.iter().find(|result| result.0 == depth).map(|result| result.1)).context(said)
}

/// A line `RESULT DEVICE DEPTH REQUESTS NANOSECONDS` of the Linux side: depth, requests a second.
fn result(line: &str) -> Option<(u64, f64)> {
    let words: Vec<&str> = line.strip_prefix("RESULT ")?.split_whitespace().collect();
    let [_, depth, requests, nanoseconds] = words[..] else { return None };
    let (requests, nanoseconds): (f64, f64) = (requests.parse().ok()?, nanoseconds.parse().ok()?);
    Some((depth.parse().ok()?, requests / nanoseconds * 1e9))
}

fn figures(who: &str, find: impl Fn(u64) -> Option<f64>) -> Result<Figures> {
    let mut figures = Figures::default();
    for (figure, depth) in figures.iter_mut().zip(DEPTHS) {
        *figure = find(depth).with_context(|| format!("{who} did not measure at depth {depth}"))?;
    }
    Ok(figures)
}

fn report(voice: Voice, rounds: &[Round]) -> Result<bool> {
    let mut rows = vec![["depth", "ours IOPS", "Linux IOPS", "ratio min", "median", "max"].map(String::from)];
    let mut good = true;
    for (index, depth) in DEPTHS.into_iter().enumerate() {
        let spread = |value: &dyn Fn(&Round) -> f64| {
            Spread::of(&rounds.iter().map(value).collect::<Vec<_>>()).context("no round was run")
        };
        let ours = spread(&|round| round.ours[index])?;
        let linux = spread(&|round| round.linux[index])?;
        let ratio = spread(&|round| round.ours[index] / round.linux[index])?;
        good &= index == 0 || ratio.median >= TARGET;
        rows.push([
            depth.to_string(),
            format!("{:.0}", ours.median),
            format!("{:.0}", linux.median),
            format!("{:.2}", ratio.min),
            format!("{:.2}", ratio.median),
            format!("{:.2}", ratio.max),
        ]);
        voice.event(&json!({
            "event": "ratio", "driver": "xenblk", "depth": depth, "rounds": rounds.len(),
            "ours_iops": ours.median.round(), "linux_iops": linux.median.round(),
            "min": ratio.min, "median": ratio.median, "max": ratio.max,
        }));
    }
    table(&rows, 1).iter().for_each(|line| voice.say(line));
    voice.say("grants made or taken back on the path of requests: none");
    voice.say(&format!("at least {TARGET} times Linux at depth 32: {}", if good { "reached" } else { "MISSED" }));
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_linux_are_read() {
        assert_eq!(result("RESULT /dev/xvda 32 20000 200000000"), Some((32, 100_000.0)));
        assert_eq!(result("RESULT /dev/xvda 32 20000"), None);
        assert_eq!(result("MISSING xen-blkfront.ko"), None);
    }

    #[test]
    fn the_greater_depth_has_the_target() {
        let voice = Voice { json: true };
        let round = |at_1, at_32| [Round { ours: [at_1, at_32], linux: [1.0, 1.0] }];
        assert!(report(voice, &round(1.0, 1.5)).unwrap());
        assert!(!report(voice, &round(9.0, 1.49)).unwrap());
    }
}
