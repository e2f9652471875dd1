//! The image while its disks fail: behind each controller a disk that QEMU's blkdebug or an nbdkit server of ours makes fail, and beside them a
//! good one. Every request ends, once; what was acknowledged is in the files; the good disk does not notice.

mod nbdkit;
mod resets;
mod scene;
mod upheaval;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use self::nbdkit::{Filters, Server};
use self::scene::Console;
use super::tally::Tally;
use crate::disk::pattern;
use crate::host::{install, workspace};
use crate::image::build::{self, Image};
use crate::report::event::Faults;
use crate::report::session::Session;

const MIB: u64 = 1 << 20;
const BYTES: u64 = 8 * MIB;
/// The region that the image writes, in which it has 64 places of 4 KiB.
const START: u64 = MIB;
const LENGTH: u64 = 4 * MIB;
const PLACES: usize = 64;
const STRIDE: u64 = LENGTH / PLACES as u64;
const SEED: u64 = 3;
/// The place that is bad to write, and the one that is bad to read.
const BAD_WRITE: u64 = START + 5 * STRIDE;
const BAD_READ: u64 = START + 9 * STRIDE;

/// The disks: a name that is serial number too, and QEMU's device.
const DISKS: [(&str, &str); 5] = [
    ("good", "virtio-blk-pci"),
    ("blk", "virtio-blk-pci"),
    ("scsi", "scsi-hd,bus=scsi.0"),
    ("pvscsi", "scsi-hd,bus=pvscsi.0"),
    ("ide", "ide-hd,bus=pata.0"),
];

/// What is done to the disks but the first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// blkdebug: an errno for one sector written, and one read.
    Sectors { errno: u32, once: bool },
    /// The disk is attached read only.
    Protected,
    /// nbdkit with these filters.
    Filter(Filters),
    /// nbdkit that stops for this many milliseconds.
    Stall(u64),
}

struct Case {
    name: &'static str,
    trouble: Trouble,
    deadline_ms: u64,
    holds: fn(&str, &Faults) -> Result<()>,
}

const CASES: [Case; 7] = [
    Case {
        name: "EIO once for one sector",
        trouble: Trouble::Sectors { errno: 5, once: true },
        deadline_ms: 5000,
        holds: |_, seen| {
            ensure!(seen.failed <= 2 && unknown(seen) <= 1, "{seen:?}");
            Ok(())
        },
    },
    Case {
        name: "EIO always for one sector",
        trouble: Trouble::Sectors { errno: 5, once: false },
        deadline_ms: 5000,
        holds: bad_place,
    },
    Case {
        name: "a disk that is full at one sector",
        trouble: Trouble::Sectors { errno: 28, once: false },
        deadline_ms: 5000,
        holds: |name, seen| {
            bad_place(name, seen)?;
            let told =
                !matches!(name, "scsi" | "pvscsi") || seen.errors.iter().any(|word| word.starts_with("NoSpace:"));
            ensure!(told, "no space is told as something else: {seen:?}");
            Ok(())
        },
    },
    Case {
        name: "write protection",
        trouble: Trouble::Protected,
        deadline_ms: 5000,
        holds: |_, seen| {
            ensure!(seen.read_only && seen.failed > 0 && unknown(seen) == PLACES, "{seen:?}");
            Ok(())
        },
    },
    Case {
        name: "EIO now and then",
        trouble: Trouble::Filter(Filters { names: &["error"], arguments: &["error=EIO", "error-rate=5%"] }),
        deadline_ms: 5000,
        holds: |name, seen| {
            // QEMU tells SCSI disks of EIO as of a command that was aborted: those are sent again.
            let again = matches!(name, "scsi" | "pvscsi");
            ensure!(seen.writes > 20 && (again || seen.failed > 0), "{seen:?}");
            Ok(())
        },
    },
    Case {
        name: "answers after the deadline",
        trouble: Trouble::Filter(Filters { names: &["delay"], arguments: &["wdelay=900ms", "rdelay=20ms"] }),
        deadline_ms: 400,
        holds: |_, seen| {
            ensure!(seen.overdue > 0, "nothing was overdue: {seen:?}");
            Ok(())
        },
    },
    Case {
        name: "a backend that stands still and comes back",
        trouble: Trouble::Stall(1000),
        deadline_ms: 400,
        holds: |_, seen| {
            ensure!(seen.longest_ms >= 400, "nothing took long: {seen:?}");
            Ok(())
        },
    },
];

/// Places of which the image does not know what they hold.
fn unknown(seen: &Faults) -> usize {
    seen.places.iter().filter(|place| place.ends_with('?')).count()
}

/// One place cannot be written, and one not be read; all others hold.
fn bad_place(_: &str, seen: &Faults) -> Result<()> {
    ensure!(seen.failed > 0 && seen.writes > seen.failed, "{seen:?}");
    ensure!(seen.places.iter().any(|place| *place == format!("{BAD_WRITE}:?")), "the bad place was written: {seen:?}");
    ensure!(unknown(seen) <= 3, "more than the bad place failed: {seen:?}");
    Ok(())
}

pub fn group(tally: &mut Tally) -> Result<()> {
    install::tools(install::QEMU.iter().chain(&install::FAULTS))?;
    let directory = workspace::scratch()?;
    let image = build::build(None, directory.path())?;
    for case in &CASES {
        let place = workspace::scratch()?;
        match run(case, &image, place.path()) {
            Ok(session) => judge(case, &session, place.path(), tally),
            Err(error) => tally.failed(&format!("{}: the image comes to its end", case.name), &format!("{error:#}")),
        }
    }
    upheaval::checks(&image, workspace::scratch()?.path(), tally);
    resets::checks(&image, workspace::scratch()?.path(), tally);
    Ok(())
}

/// The disks of a case: QEMU cannot have an IDE disk that is read only.
fn disks(case: &Case) -> impl Iterator<Item = (&'static str, &'static str)> {
    let protected = case.trouble == Trouble::Protected;
    DISKS.into_iter().filter(move |(name, _)| !(protected && *name == "ide"))
}

fn run(case: &Case, image: &Image, place: &Path) -> Result<Session> {
    let (mut extra, mut servers) = (Vec::new(), Vec::new());
    let mut line = format!(
        "console=json workload=faults faults_ms=3000 deadline_ms={} seed={SEED} disks={}",
        case.deadline_ms,
        disks(case).count()
    );
    for device in ["virtio-scsi-pci,id=scsi", "pvscsi,id=pvscsi", "piix3-ide,id=pata"] {
        extra.extend(["-device".to_owned(), device.to_owned()]);
    }
    for (name, device) in disks(case) {
        let file = place.join(name);
        fs::write(&file, vec![0; BYTES as usize]).with_context(|| file.display().to_string())?;
        let trouble = (name != "good").then_some(case.trouble);
        extra.extend(["-blockdev".into(), blockdev(name, &file, trouble, &mut servers)?.to_string()]);
        // Errors are the guest's to see; QEMU would stop at some.
        let device = format!("{device},drive={name},serial={name},werror=report,rerror=report");
        extra.extend(["-device".into(), device]);
        line += &format!(" disk={name},rw,{START},{LENGTH}");
    }
    let act = |console| match case.trouble {
        Trouble::Stall(milliseconds) => stall(console, &servers, Duration::from_millis(milliseconds)),
        _ => Ok(()),
    };
    scene::run(image, &line, &extra, act)
}

/// A file that nbdkit serves, and what QEMU is told of it.
fn served(name: &str, file: &Path, filters: Filters, servers: &mut Vec<Server>) -> Result<Value> {
    let socket = file.with_extension("socket");
    servers.push(Server::start(file, &socket, filters)?);
    let path = socket.to_str().context("a path that is not UTF-8")?;
    Ok(json!({"driver": "nbd", "node-name": name, "server": {"type": "unix", "path": path}}))
}

fn blockdev(name: &str, file: &Path, trouble: Option<Trouble>, servers: &mut Vec<Server>) -> Result<Value> {
    let path = file.to_str().context("a path that is not UTF-8")?;
    let plain = json!({"driver": "file", "filename": path});
    match trouble {
        None => Ok(json!({"driver": "raw", "node-name": name, "file": plain})),
        Some(Trouble::Protected) => {
            let plain = json!({"driver": "file", "filename": path, "read-only": true});
            Ok(json!({"driver": "raw", "node-name": name, "read-only": true, "file": plain}))
        }
        Some(Trouble::Sectors { errno, once }) => {
            let rule = |kind: &str, at: u64| json!({"event": "none", "iotype": kind, "errno": errno, "sector": at / 512, "once": once});
            let rules = [rule("write", BAD_WRITE), rule("read", BAD_READ)];
            Ok(json!({"driver": "blkdebug", "node-name": name, "image": plain, "inject-error": rules}))
        }
        Some(Trouble::Filter(filters)) => served(name, file, filters, servers),
        Some(Trouble::Stall(_)) => served(name, file, Filters { names: &[], arguments: &[] }, servers),
    }
}

/// Has the servers stand still for so long once the disks are at work.
fn stall(mut console: Console, servers: &[Server], stalls: Duration) -> Result<()> {
    for (serial, _) in DISKS {
        console.found(serial)?;
    }
    thread::sleep(Duration::from_millis(700));
    for server in servers {
        server.signal(Signal::SIGSTOP)?;
    }
    thread::sleep(stalls);
    servers.iter().try_for_each(|server| server.signal(Signal::SIGCONT))
}

fn judge(case: &Case, session: &Session, place: &Path, tally: &mut Tally) {
    let title = case.name;
    tally.check(&format!("{title}: every request of every disk ends, once"), ended(session, disks(case).count()));
    for (name, _) in disks(case) {
        let seen = || seen(session, name).with_context(|| format!("{name} says nothing"));
        if name == "good" {
            // QEMU stands still while it resets a virtio disk whose requests it cannot end.
            let fine = seen().and_then(|seen| good(seen, case.deadline_ms >= 1000));
            tally.check(&format!("{title}: the good disk goes on"), fine);
        } else {
            tally.check(
                &format!("{title}: {name}: its errors and times are told"),
                seen().and_then(|s| (case.holds)(name, s)),
            );
        }
        let holds = || acknowledged(seen()?, &place.join(name));
        tally.check(&format!("{title}: {name}: what was acknowledged is in the file"), holds());
    }
}

fn seen<'a>(session: &'a Session, name: &str) -> Option<&'a Faults> {
    let disk = session.disks.iter().find(|seen| seen.found.serial == name)?;
    session.faults.iter().find(|faults| faults.name == disk.found.name)
}

/// The good disk has lost nothing, and if it was to be in time nothing was late.
fn good(seen: &Faults, in_time: bool) -> Result<()> {
    ensure!(seen.failed == 0 && seen.writes > 30, "{seen:?}");
    ensure!(seen.overdue == 0 || !in_time, "{seen:?}");
    Ok(())
}

/// So many disks were reported, and each has completed what it accepted.
fn ended(session: &Session, disks: usize) -> Result<()> {
    ensure!(session.faults.len() == disks, "{} disks", session.faults.len());
    for seen in &session.faults {
        ensure!(seen.accepted == seen.completed && seen.mismatches == 0, "{seen:?}");
    }
    Ok(())
}

/// Every place of which the image knows what it holds, holds it, as far as the file goes: a disk that has shrunk has cut off some.
fn acknowledged(seen: &Faults, path: &PathBuf) -> Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let (mut bytes, end) = ([0; 4096], file.metadata()?.len());
    for place in &seen.places {
        let (at, count) = place.split_once(':').context("no place")?;
        let at: u64 = at.parse()?;
        let Ok(count) = count.parse::<u64>() else { continue };
        if at + bytes.len() as u64 > end {
            continue;
        }
        file.read_exact_at(&mut bytes, at)?;
        for (word, offset) in bytes.chunks_exact(8).zip((at..).step_by(8)) {
            let wanted = pattern::word(SEED.wrapping_add(count), offset).to_le_bytes();
            ensure!(word == wanted, "byte {offset} does not hold what was acknowledged");
        }
    }
    Ok(())
}
