//! Controllers that are reset behind their driver's back, with requests in flight at slow disks: by QEMU's monitor, which can write to an I/O port,
//! and by its debugger's port, which can write to a register in memory. The driver is told nothing. What it had sent comes back at its deadline,
//! by way of the recovery ladder.
//!
//! QEMU 7.2 has no command that resets one device. What there is: virtio devices have the legacy interface's status register in an I/O port as well,
//! whatever interface their driver uses, and zero resets them; an IDE channel has SRST in its control register; PVSCSI has a reset command in its
//! first memory register, which the monitor cannot reach.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::nbdkit::{Filters, Server};
use super::scene::{self, Console};
use super::{BYTES, DISKS, LENGTH, SEED, START, acknowledged, ended, good, seen, served};
use crate::image::build::Image;
use crate::qemu::qmp::Qmp;
use crate::report::event::Faults;
use crate::report::session::Session;
use crate::suite::guest::text;
use crate::suite::tally::Tally;

const SLOW: Filters = Filters { names: &["delay"], arguments: &["wdelay=10ms", "rdelay=10ms"] };
const DEADLINE_MS: u64 = 300;
const ROUNDS: usize = 3;
/// Longer than the deadline and all rungs.
const PAUSE: Duration = Duration::from_millis(6 * DEADLINE_MS + 300);
/// The status register of the legacy interface, in its ports (virtio 1.2, 4.1.4.10).
const LEGACY_STATUS: u64 = 18;
/// The control register of the first channel, and its bit SRST (ATA-6, 7.9).
const IDE_CONTROL: u64 = 0x3f6;
const SRST: u8 = 4;
/// PVSCSI's command register is the first; this resets the adapter.
const ADAPTER_RESET: &str = "01000000";

pub fn checks(image: &Image, place: &Path, tally: &mut Tally) {
    match run(image, place) {
        Ok(session) => judge(&session, place, tally),
        Err(error) => {
            tally.failed("controllers are reset meanwhile: the image comes to its end", &format!("{error:#}"))
        }
    }
}

fn run(image: &Image, place: &Path) -> Result<Session> {
    let (mut extra, mut servers) = (Vec::<String>::new(), Vec::<Server>::new());
    let mut put = |words: &[&str]| extra.extend(words.iter().map(|word| (*word).to_owned()));
    let (socket, debugger) = (place.join("qmp"), place.join("gdb"));
    put(&["-qmp", &format!("unix:{},server=on,wait=off", text(&socket))]);
    put(&["-gdb", &format!("unix:{},server=on,wait=off", text(&debugger))]);
    for device in ["virtio-scsi-pci,id=scsi", "pvscsi,id=pvscsi", "piix3-ide,id=pata"] {
        put(&["-device", device]);
    }
    // It goes on until a further disk comes.
    let mut line = format!(
        "console=json workload=faults faults_ms=500 arrivals=1 deadline_ms={DEADLINE_MS} seed={SEED} disks={}",
        DISKS.len()
    );
    for (serial, device) in DISKS {
        let file = place.join(serial);
        fs::write(&file, vec![0; BYTES as usize]).with_context(|| file.display().to_string())?;
        let node = match serial {
            "good" => json!({"driver": "file", "node-name": serial, "filename": text(&file)}),
            _ => served(serial, &file, SLOW, &mut servers)?,
        };
        let device = format!("{device},id=disk-{serial},drive={serial},serial={serial},werror=report,rerror=report");
        put(&["-blockdev", &node.to_string(), "-device", &device]);
        line += &format!(" disk={serial},rw,{START},{LENGTH}");
    }
    scene::run(image, &line, &extra, |console| reset(console, &socket, &debugger))
}

fn reset(mut console: Console, socket: &Path, debugger: &Path) -> Result<()> {
    let mut qemu = Qmp::connect_when_ready(socket)?;
    for (serial, _) in DISKS {
        console.found(serial)?;
    }
    thread::sleep(Duration::from_millis(500));
    let status = |qemu: &mut Qmp, device: &str| Ok::<_, anyhow::Error>(region(qemu, device, "io")? + LEGACY_STATUS);
    let ports = [status(&mut qemu, "disk-blk")?, status(&mut qemu, "scsi")?];
    let pvscsi = region(&mut qemu, "pvscsi", "memory")?;
    for _ in 0..ROUNDS {
        for port in ports {
            write_port(&mut qemu, port, 0)?;
        }
        write_port(&mut qemu, IDE_CONTROL, SRST)?;
        write_port(&mut qemu, IDE_CONTROL, 0)?;
        write_memory(debugger, pvscsi, ADAPTER_RESET)?;
        thread::sleep(PAUSE);
    }
    qemu.execute(
        "blockdev-add",
        json!({"driver": "null-co", "node-name": "last", "size": BYTES, "read-zeroes": true}),
    )?;
    qemu.execute(
        "device_add",
        json!({"driver": "scsi-hd", "bus": "scsi.0", "lun": 7, "drive": "last", "serial": "last"}),
    )?;
    console.found("last").map(drop)
}

/// Where a device's first region of a kind is.
fn region(qemu: &mut Qmp, device: &str, kind: &str) -> Result<u64> {
    let buses = qemu.execute("query-pci", json!({}))?;
    let devices = buses.as_array().into_iter().flatten().filter_map(|bus| bus["devices"].as_array()).flatten();
    let found = devices.into_iter().find(|found| found["qdev_id"] == device).with_context(|| format!("no {device}"))?;
    let regions = found["regions"].as_array().into_iter().flatten();
    let address =
        regions.into_iter().find(|region| region["type"] == kind).and_then(|region| region["address"].as_u64());
    address.with_context(|| format!("{device} has no region of the kind {kind}: {found}"))
}

fn write_port(qemu: &mut Qmp, port: u64, value: u8) -> Result<()> {
    let line = format!("o /b {port:#x} {value}");
    let said = qemu.execute("human-monitor-command", json!({"command-line": line}))?;
    ensure!(said == "", "{line}: {said}");
    Ok(())
}

/// Writes to physical memory, registers included, by QEMU's debugger's port: the machine stands still meanwhile.
fn write_memory(debugger: &Path, address: u64, bytes: &str) -> Result<()> {
    let mut stream = UnixStream::connect(debugger).context("QEMU's debugger's port does not answer")?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let physical = "Qqemu.PhyMemMode:1";
    for packet in [physical, &format!("M{address:x},{}:{bytes}", bytes.len() / 2), "Qqemu.PhyMemMode:0", "D"] {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        write!(stream, "${packet}#{sum:02x}")?;
        let mut said = reply(&mut stream)?;
        // That the machine stands still is told, too.
        while said.starts_with('T') {
            said = reply(&mut stream)?;
        }
        ensure!(said == "OK", "{packet}: {said}");
    }
    Ok(())
}

/// The next packet of the debugger's protocol, which is acknowledged.
fn reply(stream: &mut UnixStream) -> Result<String> {
    let mut byte = || -> Result<u8> {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        Ok(byte[0])
    };
    while byte()? != b'$' {}
    let mut said = String::new();
    loop {
        match byte()? {
            b'#' => break,
            other => said.push(char::from(other)),
        }
    }
    for _sum in 0..2 {
        byte()?;
    }
    stream.write_all(b"+")?;
    Ok(said)
}

fn judge(session: &Session, place: &Path, tally: &mut Tally) {
    const TITLE: &str = "controllers are reset meanwhile";
    tally.check(&format!("{TITLE}: every request of every disk ends, once"), ended(session, DISKS.len() + 1));
    for (serial, _) in DISKS {
        let seen = || seen(session, serial).with_context(|| format!("{serial} says nothing"));
        if serial == "good" {
            tally.check(&format!("{TITLE}: the good disk goes on"), seen().and_then(|seen| good(seen, false)));
        } else {
            let lost = serial != "ide";
            let goes_on = seen().and_then(|seen| recovered(seen, lost));
            tally.check(&format!("{TITLE}: {serial}: it is recovered each time"), goes_on);
        }
        let holds = seen().and_then(|seen| acknowledged(seen, &place.join(serial)));
        tally.check(&format!("{TITLE}: {serial}: what was acknowledged is in the file"), holds);
    }
}

/// Requests were lost with the controller and sent again, at all but IDE, where QEMU lets DMA come to its end before it resets. What the deadline
/// has ended, and a flush, may fail.
fn recovered(seen: &Faults, lost: bool) -> Result<()> {
    ensure!(seen.writes > 30 && (seen.overdue > 0 || !lost), "{seen:?}");
    let excused = |error: &String| error.starts_with("Reset:") || error.starts_with("TimedOut:");
    ensure!(seen.errors.iter().all(excused), "{seen:?}");
    // Three tasks, each with one request out: more than that cannot be lost at once.
    ensure!(seen.failed <= 3 * ROUNDS as u64, "{seen:?}");
    Ok(())
}
