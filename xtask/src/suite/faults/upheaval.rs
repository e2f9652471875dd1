//! Disks that come, go and change their size in the middle of the fault workload, while nbdkit's filters make their neighbours fail and slow.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::nbdkit::{Filters, Server};
use super::scene::{self, Console};
use super::{BAD_READ, BAD_WRITE, BYTES, LENGTH, SEED, START, acknowledged, ended, good, served};
use crate::image::build::Image;
use crate::qemu::qmp::Qmp;
use crate::report::event::Faults;
use crate::report::session::Session;
use crate::suite::guest::text;
use crate::suite::tally::Tally;

/// Sizes that a visitor gets. The second cuts off a part of what is written.
const GROWN: u64 = 2 * BYTES;
const SHRUNK: u64 = START + LENGTH / 2;
/// How long the disks are left alone between two steps.
const WHILE: Duration = Duration::from_millis(600);

/// Disks that stay: serial number, QEMU's device.
const STAYING: [(&str, &str); 5] = [
    ("good", "virtio-blk-pci"),
    ("blk", "virtio-blk-pci"),
    ("scsi", "scsi-hd,bus=scsi.0,lun=1"),
    ("pvscsi", "scsi-hd,bus=pvscsi.0,scsi-id=1"),
    ("ide", "ide-hd,bus=pata.0"),
];
/// What happens to them but the first.
const TROUBLE: Filters =
    Filters { names: &["error", "delay"], arguments: &["error=EIO", "error-rate=5%", "wdelay=5ms", "rdelay=5ms"] };

/// A disk that comes and goes.
struct Visitor {
    serial: &'static str,
    /// QEMU's device.
    device: fn() -> Value,
    /// There is a message for a new size.
    told: bool,
}

const VISITORS: [Visitor; 3] = [
    Visitor { serial: "blk-visitor", device: || json!({"driver": "virtio-blk-pci", "bus": "hotport"}), told: true },
    Visitor {
        serial: "scsi-visitor",
        device: || json!({"driver": "scsi-hd", "bus": "scsi.0", "scsi-id": 0, "lun": 7}),
        told: true,
    },
    Visitor {
        serial: "pvscsi-visitor",
        device: || json!({"driver": "scsi-hd", "bus": "pvscsi.0", "scsi-id": 9, "lun": 0}),
        told: false,
    },
];

pub fn checks(image: &Image, place: &Path, tally: &mut Tally) {
    match run(image, place) {
        Ok(session) => judge(&session, place, tally),
        Err(error) => tally.failed("disks come and go meanwhile: the image comes to its end", &format!("{error:#}")),
    }
}

fn run(image: &Image, place: &Path) -> Result<Session> {
    let (mut extra, mut servers) = (Vec::<String>::new(), Vec::new());
    let mut put = |words: &[&str]| extra.extend(words.iter().map(|word| (*word).to_owned()));
    let socket = place.join("qmp");
    // The image has no interpreter for ACPI's methods: the port's own hot plug it is.
    put(&["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]);
    put(&["-device", "pcie-root-port,id=hotport,chassis=1,slot=5"]);
    put(&["-qmp", &format!("unix:{},server=on,wait=off", text(&socket))]);
    for device in ["virtio-scsi-pci,id=scsi", "pvscsi,id=pvscsi", "piix3-ide,id=pata"] {
        put(&["-device", device]);
    }
    let mut line =
        format!("console=json workload=faults faults_ms=16000 seed={SEED} disks={}", STAYING.len() + VISITORS.len());
    for (serial, device) in STAYING {
        let file = place.join(serial);
        fs::write(&file, vec![0; BYTES as usize]).with_context(|| file.display().to_string())?;
        let node = match serial {
            "good" => json!({"driver": "file", "node-name": serial, "filename": text(&file)}),
            _ => served(serial, &file, TROUBLE, &mut servers)?,
        };
        let device = format!("{device},drive={serial},serial={serial},werror=report,rerror=report");
        put(&["-blockdev", &node.to_string(), "-device", &device]);
        line += &format!(" disk={serial},rw,{START},{LENGTH}");
    }
    for Visitor { serial, device, .. } in VISITORS {
        put(&["-object", &format!("throttle-group,id=slow-{serial},x-iops-total=400")]);
        put(&["-blockdev", &node(serial, &visit(place, serial, 1)?).to_string()]);
        put(&["-device", &with_identity(device(), serial).to_string()]);
        line += &format!(" disk={serial},rw,{START},{LENGTH}");
    }
    let act = |console| come_and_go(console, &socket, place);
    let session = scene::run(image, &line, &extra, act);
    drop::<Vec<Server>>(servers);
    session
}

/// The file of a visit, blank.
fn visit(place: &Path, serial: &str, number: u32) -> Result<PathBuf> {
    let file = place.join(format!("{serial}-{number}"));
    fs::write(&file, vec![0; BYTES as usize]).with_context(|| file.display().to_string())?;
    Ok(file)
}

/// A file with bad sectors, that takes its time. Unlike a disk that nbdkit serves it can change its size.
fn node(serial: &str, file: &Path) -> Value {
    let plain = json!({"driver": "file", "filename": text(file)});
    let rule = |kind: &str, at: u64| json!({"event": "none", "iotype": kind, "errno": 5, "sector": at / 512});
    let failing = json!({"driver": "blkdebug", "image": plain, "inject-error": [rule("write", BAD_WRITE), rule("read", BAD_READ)]});
    json!({"driver": "throttle", "node-name": serial, "throttle-group": format!("slow-{serial}"), "file": failing})
}

fn with_identity(mut device: Value, serial: &str) -> Value {
    let identity = [("id", format!("visit-{serial}")), ("drive", serial.into()), ("serial", serial.into())];
    for (key, value) in identity.into_iter().chain(["werror", "rerror"].map(|key| (key, "report".into()))) {
        device[key] = json!(value);
    }
    device
}

/// What is done to the visitors while all disks are at work.
fn come_and_go(mut console: Console, socket: &Path, place: &Path) -> Result<()> {
    let mut qemu = Qmp::connect_when_ready(socket)?;
    let mut names = Vec::new();
    for Visitor { serial, .. } in VISITORS {
        names.push(console.found(serial)?);
    }
    for bytes in [GROWN, SHRUNK] {
        thread::sleep(WHILE);
        for Visitor { serial, .. } in VISITORS {
            qemu.execute("block_resize", json!({"node-name": serial, "size": bytes}))?;
        }
        for (name, _) in names.iter().zip(VISITORS).filter(|(_, visitor)| visitor.told) {
            console.line(&format!("{name} has {} blocks", bytes / 512))?;
        }
    }
    thread::sleep(WHILE);
    for Visitor { serial, .. } in VISITORS {
        qemu.execute("device_del", json!({"id": format!("visit-{serial}")}))?;
    }
    for (name, Visitor { serial, device, .. }) in names.iter().zip(VISITORS) {
        console.line(&format!("{name} has left"))?;
        qemu.event("DEVICE_DELETED", &format!("visit-{serial}"))?;
        qemu.execute("blockdev-del", json!({"node-name": serial}))?;
        qemu.execute("blockdev-add", node(serial, &visit(place, serial, 2)?))?;
        qemu.execute("device_add", with_identity(device(), serial))?;
    }
    // All have come again: the image knows, too, and ends by itself.
    Ok(())
}

fn judge(session: &Session, place: &Path, tally: &mut Tally) {
    const TITLE: &str = "disks come and go meanwhile";
    let all = ended(session, STAYING.len() + 2 * VISITORS.len());
    tally.check(&format!("{TITLE}: every request of every disk ends, once"), all);
    for (serial, _) in STAYING {
        let seen = || Ok(*seen(session, serial).first().with_context(|| format!("{serial} says nothing"))?);
        if serial == "good" {
            tally.check(&format!("{TITLE}: the good disk goes on"), seen().and_then(|seen| good(seen, true)));
        }
        let holds = seen().and_then(|seen: &Faults| {
            ensure!(seen.writes > 30, "{seen:?}");
            acknowledged(seen, &place.join(serial))
        });
        tally.check(&format!("{TITLE}: {serial}: what was acknowledged is in the file"), holds);
    }
    for Visitor { serial, .. } in VISITORS {
        tally.check(
            &format!("{TITLE}: {serial}: what was acknowledged at each visit is in its file"),
            visits(session, serial, place),
        );
    }
    tally.check(&format!("{TITLE}: control: a byte that is changed in a file is found"), changed(session, place));
}

/// The negative control: one byte of what was acknowledged is changed in the file.
fn changed(session: &Session, place: &Path) -> Result<()> {
    let seen = seen(session, "blk");
    let seen = seen.first().context("blk says nothing")?;
    let known = seen.places.iter().rfind(|place| !place.ends_with('?')).and_then(|place| place.split_once(':'));
    let at: u64 = known.context("nothing is known")?.0.parse()?;
    let path = place.join("blk");
    let mut bytes = fs::read(&path)?;
    bytes[at as usize + 4095] ^= 1;
    fs::write(&path, bytes)?;
    let said = acknowledged(seen, &path).err().context("it was not noticed")?.to_string();
    ensure!(said.contains("does not hold what was acknowledged"), "{said}");
    Ok(())
}

/// All that was said of disks with this serial number, in order.
fn seen<'a>(session: &'a Session, serial: &str) -> Vec<&'a Faults> {
    let names = session.disks.iter().filter(|seen| seen.found.serial == serial).map(|seen| &seen.found.name);
    names.filter_map(|name| session.faults.iter().find(|faults| faults.name == *name)).collect()
}

fn visits(session: &Session, serial: &str, place: &Path) -> Result<()> {
    let visits = seen(session, serial);
    ensure!(visits.len() == 2, "{} visits", visits.len());
    for (number, visit) in (1..).zip(&visits) {
        ensure!(visit.writes > 20 && visit.failed > 0, "{visit:?}");
        let file = place.join(format!("{serial}-{number}"));
        let bytes = file.metadata()?.len();
        ensure!(bytes == if number == 1 { SHRUNK } else { BYTES }, "the file has {bytes} bytes");
        acknowledged(visit, &file)?;
    }
    // Nothing that lies beyond the end can have been written after the disk had shrunk, and most of it was tried.
    let beyond =
        |place: &&String| place.split_once(':').and_then(|(at, _)| at.parse().ok()).is_some_and(|at: u64| at >= SHRUNK);
    let lost = visits[0].places.iter().filter(beyond).filter(|place| place.ends_with('?')).count();
    ensure!(lost > 10, "nothing was beyond the end: {:?}", visits[0]);
    let known = visits[1].places.iter().filter(|place| !place.ends_with('?')).count();
    ensure!(known > 20, "{:?}", visits[1]);
    Ok(())
}
