//! Disks that are plugged in, resized and taken away by QEMU's monitor, under load: no request is lost, every read has the right bytes,
//! every error is the right one, and the other disks notice nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::conversation::Conversation;
use super::guest::text;
use super::tally::Tally;
use crate::disk::pattern;
use crate::host::workspace;
use crate::qemu::qmp::Qmp;

const MIB: u64 = 1 << 20;
/// Of a disk that comes and goes: at first, grown, shrunk.
const BYTES: u64 = 16 * MIB;
const GROWN: u64 = 24 * MIB;
const SHRUNK: u64 = 8 * MIB;
/// What it holds.
const SEED: u64 = 9;
/// How long a load goes on before something is looked at.
const WHILE: Duration = Duration::from_millis(700);

/// Disks that stay, and where in them is written: blocks from, how many.
const STAYING: [(&str, u64, u64); 5] = [
    ("virtio-blk0", 22528, 4096),
    ("virtio-scsi0", 22528, 4096),
    ("virtio-scsi1", 2816, 512),
    ("pvscsi0", 22528, 4096),
    ("pvscsi1", 2816, 512),
];

/// A kind of disk that comes and goes.
struct Kind {
    driver: &'static str,
    /// The number that the first one gets.
    number: u32,
    /// The device's properties, but for its node.
    device: fn() -> Value,
}

const KINDS: [Kind; 3] = [
    Kind {
        driver: "virtio-scsi",
        number: 2,
        device: || json!({"driver": "scsi-hd", "bus": "scsi.0", "scsi-id": 0, "lun": 7}),
    },
    Kind {
        driver: "pvscsi",
        number: 2,
        device: || json!({"driver": "scsi-hd", "bus": "pvscsi.0", "scsi-id": 9, "lun": 0}),
    },
    Kind { driver: "virtio-blk", number: 1, device: || json!({"driver": "virtio-blk-pci", "bus": "hotport"}) },
];

pub fn checks(kernel: &str, tally: &mut Tally) -> Result<()> {
    let directory = workspace::scratch()?;
    let socket = directory.path().join("qmp");
    let arguments = [
        "--kernel",
        kernel,
        "--bus",
        "virtio-blk,virtio-scsi,pvscsi",
        "--disk-size",
        "16",
        "--timeout",
        "600",
        // The image has no interpreter for ACPI's methods: the port's own hot plug it is.
        "--qemu-arg=-global",
        "--qemu-arg=ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
        "--qemu-arg=-device",
        "--qemu-arg=pcie-root-port,id=hotport,chassis=1,slot=5",
        "--qemu-arg=-qmp",
        &format!("--qemu-arg=unix:{},server=on,wait=off", text(&socket)),
    ];
    let mut image = Conversation::start(&arguments.map(str::to_owned))?;
    let mut qemu = Qmp::connect(&socket)?;
    for (disk, lba, blocks) in STAYING {
        image.says(&format!("write {disk} {lba} {blocks} 5"), "read back equal")?;
        image.says(&format!("load {disk} {lba} {blocks} 5"), "reads and writes")?;
    }
    for kind in &KINDS {
        let mut visit = Visit { kind, image: &mut image, qemu: &mut qemu, file: directory.path().join(kind.driver) };
        visit.whole(tally)?;
    }
    for (disk, ..) in STAYING {
        let held = unloaded(&image.ask(&format!("unload {disk}"))?);
        tally.check(&format!("hotplug: {disk} noticed nothing of all that"), held);
    }
    tally.check("hotplug: the session ends well, and nothing is left in the heaps", image.quit());
    Ok(())
}

/// One thing that happens to a visitor.
type Step<'s> = &'s mut dyn FnMut(&mut Visit<'_>) -> Result<()>;

/// A disk's visit.
struct Visit<'a> {
    kind: &'a Kind,
    image: &'a mut Conversation,
    qemu: &'a mut Qmp,
    file: PathBuf,
}

impl Visit<'_> {
    fn whole(&mut self, tally: &mut Tally) -> Result<()> {
        let driver = self.kind.driver;
        let name = format!("{driver}{}", self.kind.number);
        let again = format!("{driver}{}", self.kind.number + 1);
        let steps: [(&str, Step<'_>); 5] = [
            ("a disk that is plugged in is found", &mut |visit| visit.come(&name)),
            ("it is read under load, with the right bytes", &mut |visit| visit.load(&name)),
            ("it grows under load", &mut |visit| visit.grow(&name)),
            ("it shrinks under load, and what is beyond is an error", &mut |visit| visit.shrink(&name)),
            ("it is taken away under load, and every request ends", &mut |visit| visit.go(&name, true)),
        ];
        for (title, step) in steps {
            let result = step(self);
            // The next steps stand on this one.
            tally
                .check(&format!("hotplug: {driver}: {title}"), result)
                .with_context(|| format!("{driver}: {title}"))?;
        }
        let mut once_more = || {
            self.come(&again)?;
            self.go(&again, false)
        };
        tally.check(&format!("hotplug: {driver}: its place can be used again"), once_more());
        let others = self.others();
        tally.check(&format!("hotplug: {driver}: the other disks go on"), others);
        Ok(())
    }

    fn come(&mut self, name: &str) -> Result<()> {
        fill(&self.file)?;
        let node = "visitor";
        let file = json!({"driver": "file", "filename": text(&self.file)});
        self.qemu.execute("blockdev-add", json!({"driver": "raw", "node-name": node, "file": file}))?;
        let mut device = (self.kind.device)();
        device["id"] = json!("visit");
        device["drive"] = json!(node);
        device["serial"] = json!("visitor");
        self.qemu.execute("device_add", device)?;
        let news = self.image.news(&format!("{name} has arrived"))?;
        ensure!(news.contains("serial visitor, 16 MiB in 32768 blocks"), "{news}");
        Ok(())
    }

    fn load(&mut self, name: &str) -> Result<()> {
        // The negative control: wrong bytes are noticed, read by read.
        self.image.says(&format!("load {name} 0 32768 {}", SEED - 1), "load: reads of 32768 blocks")?;
        thread::sleep(WHILE / 4);
        let load = Counts::of(&self.image.ask(&format!("unload {name}"))?, name)?;
        ensure!(load.reads > 0 && load.wrong == load.reads, "wrong bytes are taken for right ones: {}", load.line);
        self.image.says(&format!("load {name} 0 32768 {SEED}"), "load: reads of 32768 blocks")?;
        thread::sleep(WHILE);
        let load = self.counts(name)?;
        ensure!(load.reads > 0 && load.wrong == 0 && load.failed == 0, "{}", load.line);
        Ok(())
    }

    fn resize(&mut self, name: &str, bytes: u64) -> Result<Counts> {
        self.qemu.execute("block_resize", json!({"node-name": "visitor", "size": bytes}))?;
        let blocks = bytes / 512;
        let known = format!("{name} has {blocks} blocks");
        if self.kind.driver == "pvscsi" {
            // There is no message for it, and QEMU before 8.1 forgets its UNIT ATTENTION when any command that was out ends.
            self.image.says("capacities", &known)?;
        } else {
            self.image.news(&known)?;
        }
        self.image.says(&format!("read {name} {}", blocks - 1), "512 bytes, sha256 ")?;
        self.image.says(&format!("read {name} {blocks}"), "not on the disk")?;
        let before = self.counts(name)?;
        thread::sleep(WHILE);
        let after = self.counts(name)?;
        ensure!(after.reads > before.reads && after.wrong == 0, "{}\n{}", before.line, after.line);
        Ok(after)
    }

    fn grow(&mut self, name: &str) -> Result<()> {
        let load = self.resize(name, GROWN)?;
        ensure!(load.failed == 0, "{}", load.line);
        Ok(())
    }

    fn shrink(&mut self, name: &str) -> Result<()> {
        let load = self.resize(name, SHRUNK)?;
        ensure!(load.failed > 0 && load.line.contains("times OutOfRange"), "{}", load.line);
        Ok(())
    }

    fn go(&mut self, name: &str, loaded: bool) -> Result<()> {
        self.qemu.execute("device_del", json!({"id": "visit"}))?;
        let news = self.image.news(&format!("{name} has left"))?;
        if loaded {
            let load = Counts::of(&news, name)?;
            ensure!(load.in_flight == 0 && load.sent == load.done && load.wrong == 0, "{}", load.line);
            ensure!(load.line.contains("times Removed"), "{}", load.line);
        }
        ensure!(!news.contains("PROBLEM"), "{news}");
        self.qemu.event("DEVICE_DELETED", "visit")?;
        self.image.says(&format!("read {name} 0"), "there is no such disk")?;
        self.qemu.execute("blockdev-del", json!({"node-name": "visitor"}))?;
        Ok(())
    }

    fn counts(&mut self, name: &str) -> Result<Counts> {
        let answer = self.image.ask("loads")?;
        Counts::of(&answer, name)
    }

    /// The disks that stay: each has gone on, and nothing went wrong.
    fn others(&mut self) -> Result<()> {
        let before = self.image.ask("loads")?;
        thread::sleep(WHILE);
        let after = self.image.ask("loads")?;
        for (disk, ..) in STAYING {
            let (before, after) = (Counts::of(&before, disk)?, Counts::of(&after, disk)?);
            let goes_on = after.reads > before.reads && after.wrong == 0 && after.failed == 0;
            ensure!(goes_on, "{}\n{}", before.line, after.line);
        }
        Ok(())
    }
}

/// What the image says of a load.
pub(super) struct Counts {
    sent: u64,
    done: u64,
    in_flight: u64,
    pub(super) reads: u64,
    pub(super) wrong: u64,
    pub(super) failed: u64,
    pub(super) line: String,
}

impl Counts {
    pub(super) fn of(answer: &str, name: &str) -> Result<Self> {
        let start = format!("{name} load: ");
        let line = answer.lines().find_map(|line| line.trim().strip_prefix(&start));
        let line = line.with_context(|| format!("no load of {name}:\n{answer}"))?;
        let number = |what: &str| {
            let part = line.split([',', ';']).map(str::trim).find(|part| part.ends_with(what));
            let number = part.and_then(|part| part.split(' ').next()?.parse().ok());
            number.with_context(|| format!("how many {what}? {line}"))
        };
        Ok(Self {
            sent: number(" sent")?,
            done: number(" done")?,
            in_flight: number(" in flight")?,
            reads: number(" reads checked")?,
            wrong: number(" wrong")?,
            failed: number(" failed")?,
            line: line.to_owned(),
        })
    }
}

impl Counts {
    /// Whether nothing is out any more, and everything that was came back.
    pub(super) fn is_over(&self) -> bool {
        self.in_flight == 0 && self.sent == self.done
    }
}

/// The last word of a load on a disk that stays.
fn unloaded(answer: &str) -> Result<()> {
    let name = answer.split_whitespace().next().unwrap_or_default();
    let load = Counts::of(answer, name)?;
    if load.in_flight > 0 || load.sent != load.done || load.wrong > 0 || load.failed > 0 || load.reads == 0 {
        bail!("{answer}");
    }
    Ok(())
}

/// Makes the file what the image expects of it.
fn fill(path: &Path) -> Result<()> {
    let bytes: Vec<u8> = (0..BYTES / 8).flat_map(|word| pattern::word(SEED, word * 8).to_le_bytes()).collect();
    fs::write(path, bytes).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_a_load_are_read() {
        let answer = "a0 load: 9 sent, 8 done, 1 in flight, 7 reads checked, 0 wrong, 2 failed, 1 refused, longest 3 ms, oldest 0 ms; \
                      2 times OutOfRange\n";
        let load = Counts::of(answer, "a0").unwrap();
        assert_eq!([load.sent, load.done, load.in_flight, load.reads, load.wrong, load.failed], [9, 8, 1, 7, 0, 2]);
        assert!(unloaded(answer).is_err() && Counts::of(answer, "b0").is_err());
    }
}
