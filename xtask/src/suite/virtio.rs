//! virtio beside reading and writing, on QEMU: discard, write zeroes, the write cache's switch, resets of a queue and of the whole device
//! with reads in flight, a disk that grows. What a disk's file holds afterwards is looked at from the host.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::unistd::{Whence, lseek};
use serde_json::json;

use super::conversation::Conversation;
use super::guest::text;
use super::tally::Tally;
use crate::host::workspace;
use crate::qemu::qmp::Qmp;

const MIB: u64 = 1 << 20;
/// What the files hold at first.
const FILL: u8 = 0xa5;
const BYTES: u64 = 16 * MIB;
const GROWN: u64 = 24 * MIB;

/// What is set for the devices, and whether one of their queues can be reset then.
const VARIANTS: [(&str, &str, bool); 3] = [
    ("split rings", "packed=off", true),
    ("packed rings", "packed=on", true),
    ("the legacy interface", "disable-modern=on", false),
];

/// What is typed, and what the answer says. Blocks have 512 bytes; bytes 1 MiB to 9 MiB may be written.
const SESSION: [(&str, &str); 14] = [
    ("discard virtio-blk0 4096 2048", "2048 blocks from 4096 discarded, flushed"),
    ("zero virtio-blk0 8192 2048", "2048 blocks from 8192 zeroed, flushed"),
    ("discard virtio-scsi0 4096 2048", "2048 blocks from 4096 discarded, flushed"),
    ("zero virtio-scsi0 8192 2048", "2048 blocks from 8192 zeroed, flushed"),
    ("discard virtio-blk0 0 8", "error: 8 blocks from 0: the disk may not be written there"),
    ("cache virtio-blk0 off", "the cache is off"),
    ("write virtio-blk0 12288 64 5", "read back equal"),
    ("cache virtio-blk0 on", "the cache is volatile"),
    ("reset virtio-blk0 queue", "and reading goes on"),
    ("reset virtio-blk0", "and reading goes on"),
    ("reset virtio-scsi0 unit", "and reading goes on"),
    ("reset virtio-scsi0", "and reading goes on"),
    ("verify virtio-blk0 12288 64 5", "hold the pattern of seed 5"),
    ("read virtio-blk0 40960", "error: 1 blocks from 40960: not on the disk"),
];

pub fn checks(kernel: &str, tally: &mut Tally) -> Result<()> {
    for (name, setting, queue_resets) in VARIANTS {
        let directory = workspace::scratch()?;
        let files = ["blk", "scsi"].map(|name| directory.path().join(name));
        for file in &files {
            fs::write(file, vec![FILL; BYTES as usize]).with_context(|| file.display().to_string())?;
        }
        session(&format!("virtio with {name}"), kernel, directory.path(), (setting, queue_resets), tally)?;
        for file in &files {
            let title = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            tally.check(
                &format!(
                    "virtio with {name}: the file of {title}: what was discarded is a hole, nothing else is touched"
                ),
                holes(file),
            );
        }
    }
    Ok(())
}

fn session(
    name: &str,
    kernel: &str,
    directory: &Path,
    (setting, queue_resets): (&str, bool),
    tally: &mut Tally,
) -> Result<()> {
    let socket = directory.join("qmp");
    let disk = |bus: &str| format!("{},bus=virtio-{bus},rw=1M:8M", text(&directory.join(bus)).replace(',', ",,"));
    let mut image = Conversation::start(&[
        "--machine=pc".into(),
        "--kernel".into(),
        kernel.into(),
        "--timeout=120".into(),
        "--disk".into(),
        disk("blk"),
        "--disk".into(),
        disk("scsi"),
        "--qemu-arg=-qmp".into(),
        format!("--qemu-arg=unix:{},server=on,wait=off", text(&socket)),
        "--qemu-arg=-global".into(),
        format!("--qemu-arg=virtio-blk-pci.{setting}"),
        "--qemu-arg=-global".into(),
        format!("--qemu-arg=virtio-scsi-pci.{setting}"),
    ])?;
    for (line, wanted) in SESSION {
        let refused = line.ends_with(" queue") && !queue_resets;
        let wanted = if refused { "error: the disk failed: " } else { wanted };
        tally.check(&format!("{name}: {line}"), image.says(line, wanted));
    }
    let mut grows = || {
        let mut monitor = Qmp::connect(&socket)?;
        monitor.execute("block_resize", json!({"node-name": "disk0", "size": GROWN}))?;
        image.news("virtio-blk0 has 49152 blocks")?;
        image.says("disks", "24 MiB in 49152 blocks")?;
        image.says("read virtio-blk0 40960", "512 bytes, sha256 ")
    };
    tally.check(&format!("{name}: a disk that grows is larger at once"), grows());
    tally.check(&format!("{name}: the session ends well"), image.quit());
    Ok(())
}

/// The ranges that were discarded and zeroed, and everything else.
fn holes(path: &Path) -> Result<()> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let file = File::open(path)?;
    let first = |from: u64, what| lseek(&file, from as i64, what).map(|at| at as u64).context("cannot seek to a hole");
    let is_hole = |from: u64, to: u64| -> Result<bool> {
        Ok(first(from, Whence::SeekHole)? == from && first(from, Whence::SeekData)? >= to)
    };
    ensure!(is_hole(2 * MIB, 3 * MIB)?, "the range that was discarded is no hole");
    ensure!(!is_hole(3 * MIB, 4 * MIB)?, "a range that was not discarded is a hole");
    let written = path.ends_with("blk").then_some(6 * MIB..6 * MIB + 64 * 512);
    for (at, byte) in (0..BYTES).zip(&bytes) {
        let cleared = (2 * MIB..3 * MIB).contains(&at) || (4 * MIB..5 * MIB).contains(&at);
        let wanted = if cleared { 0 } else { FILL };
        let ours = written.as_ref().is_some_and(|written| written.contains(&at));
        ensure!(ours || *byte == wanted, "byte {at} is {byte:#04x}, not {wanted:#04x}");
    }
    Ok(())
}
