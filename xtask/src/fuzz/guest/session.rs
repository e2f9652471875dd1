//! One boot of the image, and random acts: what is asked of it, what happens to its disks meanwhile, and what must be there.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::oracle::{BLOCK, Oracle, Random};
use crate::qemu::qmp::Qmp;
use crate::suite::conversation::Conversation;
use crate::suite::guest::text;

/// Blocks of a disk, and of a range that something is done to, at most.
const BLOCKS: u64 = 16 << 10;
const RANGE: u64 = 2 << 10;
/// Steps of a script at most.
const STEPS: u64 = 300;
/// The disks: controllers, and the names that the image gives.
const DISKS: [(&str, &str); 5] = [
    ("virtio-blk", "virtio-blk0"),
    ("virtio-scsi", "virtio-scsi0"),
    ("virtio-scsi", "virtio-scsi1"),
    ("pvscsi", "pvscsi0"),
    ("ide", "ata0"),
];
/// The number that the next disk plugged in will have.
const FIRST_VISITOR: u32 = 2;
/// What a load in the background reads: the end of each disk, which nothing else touches, and the seed of what is there.
const LOAD: u64 = 1 << 10;
const LOAD_SEED: u64 = 5;

/// A kind of act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Script,
    Write,
    Zero,
    Discard,
    Read,
    Reset,
    Load,
    Visit,
    Snapshot,
}

/// How often each is chosen, of their sum.
const WEIGHTS: [(Kind, u64); 9] = [
    (Kind::Script, 10),
    (Kind::Write, 3),
    (Kind::Zero, 2),
    (Kind::Discard, 1),
    (Kind::Read, 4),
    (Kind::Reset, 2),
    (Kind::Load, 2),
    (Kind::Visit, 1),
    (Kind::Snapshot, 1),
];

/// What happens to the machine while a script runs.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    Nothing,
    /// All processors stand still for so many milliseconds, so often.
    Pauses(u64, u64),
    /// A disk is plugged in, and taken away later.
    Plug,
    /// The machine stands still, and its disks are looked at.
    Look,
}

/// See the module.
pub struct Session {
    image: Option<Conversation>,
    qemu: Qmp,
    random: Random,
    disks: Vec<(PathBuf, Oracle)>,
    loads: [bool; DISKS.len()],
    visitor: PathBuf,
    visits: u32,
    /// Everything that was done, in order.
    pub log: Vec<String>,
}

impl Session {
    pub fn start(kernel: &str, directory: &Path, seed: u64) -> Result<Self> {
        let mut random = Random(seed);
        let socket = directory.join("qmp");
        let mut arguments: Vec<String> =
            ["--kernel", kernel, "--timeout", "1200", "--silence", "120"].map(String::from).into();
        arguments.extend(["--cpus".into(), (1 + random.below(3)).to_string()]);
        let mut disks = Vec::new();
        for (number, (bus, _)) in DISKS.iter().enumerate() {
            let path = directory.join(format!("disk{number}"));
            // A load that may not write only reads: writes that nobody has flushed would make a reset lose something, as it should.
            let (writable, mut oracle) = ((BLOCKS - LOAD) * BLOCK as u64, Oracle::new(BLOCKS));
            oracle.write(BLOCKS - LOAD, LOAD, LOAD_SEED);
            fs::write(&path, oracle.bytes()).with_context(|| path.display().to_string())?;
            arguments.extend(["--disk".into(), format!("{},bus={bus},rw=0:{writable}", text(&path))]);
            disks.push((path, oracle));
        }
        let visitor = directory.join("visitor");
        fs::write(&visitor, vec![0; 1 << 20]).with_context(|| visitor.display().to_string())?;
        arguments.push(format!("--qemu-arg=-qmp\0--qemu-arg=unix:{},server=on,wait=off", text(&socket)));
        let arguments: Vec<String> = arguments.iter().flat_map(|word| word.split('\0')).map(String::from).collect();
        let image = Some(Conversation::start(&arguments)?);
        let qemu = Qmp::connect(&socket)?;
        Ok(Self { image, qemu, random, disks, loads: [false; DISKS.len()], visitor, visits: 0, log: Vec::new() })
    }

    pub fn run(&mut self, acts: u32) -> Result<()> {
        for _ in 0..acts {
            let mut left = self.random.below(WEIGHTS.iter().map(|(_, weight)| weight).sum());
            let chosen = WEIGHTS.iter().find(|(_, weight)| {
                let here = left < *weight;
                left = left.saturating_sub(*weight);
                here
            });
            self.act(chosen.map_or(Kind::Script, |(kind, _)| *kind))?;
        }
        Ok(())
    }

    /// Powers off, and looks at every disk: what was done, in a line.
    pub fn finish(&mut self) -> Result<String> {
        self.note("quit");
        let said = self.image.take().context("the session is over")?.quit()?;
        ensure!(!said.contains("PROBLEM"), "{said}");
        self.look(None)?;
        let scripts = self.log.iter().filter(|act| act.starts_with("script")).count();
        Ok(format!("{} acts, {scripts} of them scripts; every disk holds what it must", self.log.len()))
    }

    /// Makes the oracle wrong.
    pub fn break_oracle(&mut self) {
        self.disks[0].1.break_a_byte();
    }

    fn image(&mut self) -> Result<&mut Conversation> {
        self.image.as_mut().context("the session is over")
    }

    fn note(&mut self, what: &str) {
        self.log.push(what.to_owned());
    }

    /// Asks the image, and holds if the answer contains something.
    fn says(&mut self, line: &str, wanted: &str) -> Result<String> {
        self.note(line);
        let answer = self.image()?.ask(line)?;
        ensure!(
            answer.contains(wanted) && !answer.contains("error:"),
            "'{line}' is not answered by '{wanted}':\n{answer}"
        );
        Ok(answer)
    }

    /// A disk, and a range of it.
    fn place(&mut self, most: u64) -> (usize, u64, u64) {
        let disk = self.random.below(DISKS.len() as u64) as usize;
        let blocks = 1 + self.random.below(most);
        let room = self.disks[disk].1.blocks() - LOAD - blocks;
        (disk, self.random.below(room + 1), blocks)
    }

    pub fn act(&mut self, kind: Kind) -> Result<()> {
        match kind {
            Kind::Script => self.script(),
            Kind::Write => {
                let (disk, first, blocks) = self.place(RANGE);
                let seed = self.random.below(1 << 32);
                self.says(&format!("write {} {first} {blocks} {seed}", DISKS[disk].1), "read back equal")?;
                self.disks[disk].1.write(first, blocks, seed);
                Ok(())
            }
            Kind::Zero | Kind::Discard => {
                let (disk, first, blocks) = self.place(RANGE);
                let verb = if kind == Kind::Zero { "zero" } else { "discard" };
                let line = format!("{verb} {} {first} {blocks}", DISKS[disk].1);
                self.note(&line);
                let answer = self.image()?.ask(&line)?;
                // Not every device can.
                let cannot = answer.contains("error: the disk failed: the device cannot do this");
                ensure!(cannot || answer.contains("flushed"), "'{line}': {answer}");
                match kind {
                    _ if cannot => {}
                    Kind::Zero => self.disks[disk].1.zero(first, blocks),
                    _ => self.disks[disk].1.forget(first, blocks),
                }
                Ok(())
            }
            Kind::Read => {
                let (disk, first, blocks) = self.place(RANGE.min((1 << 20) / BLOCK as u64));
                let wanted = self.disks[disk].1.sum(first..first + blocks).unwrap_or_else(|| "sha256 ".into());
                self.says(&format!("read {} {first} {blocks}", DISKS[disk].1), &wanted).map(drop)
            }
            Kind::Reset => {
                let (disk, ..) = self.place(1);
                let what = ["", " queue", " unit", " controller"][self.random.below(4) as usize];
                let line = format!("reset {}{what}", DISKS[disk].1);
                self.note(&line);
                let answer = self.image()?.ask(&line)?;
                // Not every device has every one.
                ensure!(answer.contains("and reading goes on") || answer.contains("error: "), "'{line}': {answer}");
                Ok(())
            }
            Kind::Load => self.load(),
            Kind::Visit => {
                self.plug()?;
                self.unplug()
            }
            Kind::Snapshot => self.snapshot(None),
        }
    }

    fn script(&mut self) -> Result<()> {
        let (disk, first, blocks) = self.place(RANGE);
        let (seed, steps) = (self.random.below(1 << 32), 1 + self.random.below(STEPS) as u32);
        let depth = 1 + self.random.below(32);
        let meanwhile = match self.random.below(8) {
            0..4 => Meanwhile::Nothing,
            4..6 => Meanwhile::Pauses(1 + self.random.below(40), 1 + self.random.below(3)),
            6 => Meanwhile::Plug,
            _ => Meanwhile::Look,
        };
        let line = format!("script {} {first} {blocks} {seed} {steps} {depth}", DISKS[disk].1);
        self.note(&format!("{line} ({meanwhile:?})"));
        self.image()?.tell(&line)?;
        match meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::Pauses(milliseconds, times) => {
                for _ in 0..times {
                    self.qemu.execute("stop", json!({}))?;
                    thread::sleep(Duration::from_millis(milliseconds));
                    self.qemu.execute("cont", json!({}))?;
                }
            }
            Meanwhile::Plug => self.device_add()?,
            Meanwhile::Look => self.snapshot(Some((disk, first, blocks)))?,
        }
        let answer = self.image()?.answer()?;
        ensure!(answer.contains("; 0 wrong, 0 failed") && !answer.contains("error:"), "{line}: {answer}");
        self.disks[disk].1.script(first, blocks, seed, steps);
        if matches!(meanwhile, Meanwhile::Plug) {
            self.arrived()?;
            self.unplug()?;
        }
        Ok(())
    }

    /// Begins reading the end of a disk in the background, or ends it.
    fn load(&mut self) -> Result<()> {
        let (disk, ..) = self.place(1);
        let name = DISKS[disk].1;
        let first = BLOCKS - LOAD;
        if self.loads[disk] {
            let answer = self.says(&format!("unload {name}"), " 0 in flight")?;
            ensure!(answer.contains(" 0 wrong, 0 failed") || answer.contains("Reset"), "{answer}");
        } else {
            self.says(&format!("load {name} {first} {LOAD} {LOAD_SEED}"), "load: reads of ")?;
        }
        self.loads[disk] = !self.loads[disk];
        Ok(())
    }

    /// Plugs a disk into the virtio-scsi host.
    fn device_add(&mut self) -> Result<()> {
        let file = json!({"driver": "file", "filename": text(&self.visitor)});
        self.qemu.execute("blockdev-add", json!({"driver": "raw", "node-name": "visitor", "file": file}))?;
        let device = json!({"driver": "scsi-hd", "bus": "scsi.0", "scsi-id": 0, "lun": 9, "id": "visit", "drive": "visitor",
            "serial": "visitor"});
        self.qemu.execute("device_add", device)?;
        Ok(())
    }

    fn visitor_name(&self) -> String {
        format!("virtio-scsi{}", FIRST_VISITOR + self.visits)
    }

    fn arrived(&mut self) -> Result<()> {
        let name = self.visitor_name();
        self.image()?.news(&format!("{name} has arrived")).map(drop)
    }

    fn plug(&mut self) -> Result<()> {
        self.note("plug a disk in");
        self.device_add()?;
        self.arrived()
    }

    fn unplug(&mut self) -> Result<()> {
        let name = self.visitor_name();
        self.note(&format!("take {name} away"));
        self.qemu.execute("device_del", json!({"id": "visit"}))?;
        let news = self.image()?.news(&format!("{name} has left"))?;
        ensure!(!news.contains("PROBLEM"), "{news}");
        self.qemu.event("DEVICE_DELETED", "visit")?;
        self.qemu.execute("blockdev-del", json!({"node-name": "visitor"}))?;
        self.visits += 1;
        Ok(())
    }

    /// The machine stands still, with nothing on its way: the disks hold what they must, but for what is in the making.
    fn snapshot(&mut self, busy: Option<(usize, u64, u64)>) -> Result<()> {
        self.note("look at the disks while the machine stands still");
        self.qemu.execute("stop", json!({}))?;
        let looked = self.look(busy);
        self.qemu.execute("cont", json!({}))?;
        looked
    }

    fn look(&self, busy: Option<(usize, u64, u64)>) -> Result<()> {
        for (number, (path, oracle)) in self.disks.iter().enumerate() {
            let busy =
                busy.filter(|(disk, ..)| *disk == number).map_or(0..0, |(_, first, blocks)| first..first + blocks);
            let bytes = fs::read(path).with_context(|| path.display().to_string())?;
            if let Some(block) = oracle.differs(&bytes, &busy) {
                anyhow::bail!("{}: block {block} differs from what must be there", DISKS[number].1);
            }
        }
        Ok(())
    }
}
