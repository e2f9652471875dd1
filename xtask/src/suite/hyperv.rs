//! The image on the Hyper-V machine: two disks, which it can find by VMBus only, are verified; a third comes and goes while it runs.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::conversation::Conversation;
use super::guest::{self, Run, text};
use super::hotplug::Counts;
use super::tally::Tally;
use crate::cli::Vmm;
use crate::disk::pattern;
use crate::host::{install, workspace};
use crate::hyperv;
use crate::image::build;
use crate::report::voice::Voice;

const MIB: u64 = 1 << 20;
const KVM: &str = "/dev/kvm";
/// Bytes of the disks that are verified, and with `--long`.
const SMALL: u64 = 32 << 10;
const LARGER: u64 = 256 << 10;
/// Of the disk that comes and goes.
const SEED: u64 = 9;
/// How long a load goes on before it is looked at.
const WHILE: Duration = Duration::from_secs(2);
/// How long the machine may take to answer at its socket.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn group(tally: &mut Tally) -> Result<()> {
    if !Path::new(KVM).exists() {
        println!(
            "NOT RUN: this machine has no {KVM}, on which the Hyper-V machine runs; the driver is tested against the model in one process"
        );
        return Ok(());
    }
    install::tools(&install::FILE_SYSTEMS)?;
    hyperv::program(Vmm::BuiltIn, Voice { json: false })?;
    let directory = workspace::scratch()?;
    let image = build::build(None, directory.path())?;
    let kernel = text(&image.whole);
    booted(&kernel, "4", &[], tally)?;
    if tally.is_long {
        booted(&kernel, "1", &[], tally)?;
        booted(&kernel, "2", &["--vmm-arg=--vmbus=3.0", "--vmm-arg=--sub-channels=0"], tally)?;
    }
    verified(&kernel, directory.path(), tally)?;
    hotplug(&kernel, directory.path(), tally)
}

/// Disks are found, and nothing is done with them: where KVM emulates the guest, as it does on some machines, a MiB takes a minute.
fn booted(kernel: &str, cpus: &str, more: &[&str], tally: &mut Tally) -> Result<()> {
    let arguments = ["--on", "hyperv", "--kernel", kernel, "--cpus", cpus, "--workload", "none", "--timeout", "300"];
    let run = guest::run(&arguments.iter().chain(more).map(|word| (*word).to_owned()).collect::<Vec<_>>())?;
    let name = format!("hyperv: {cpus} processors{}", if more.is_empty() { "" } else { ", an old host" });
    let whole = if run.success { Ok(()) } else { Err(anyhow::Error::msg(run.text.clone())) };
    tally.check(&format!("{name}: the run succeeds"), whole);
    tally.check(&format!("{name}: both disks are found by VMBus, and no other"), found(&run));
    tally.check(&format!("{name}: the image keeps to the interface"), polite(&run));
    Ok(())
}

/// Two small disks are read whole, and one is written.
fn verified(kernel: &str, directory: &Path, tally: &mut Tally) -> Result<()> {
    let words = ["--on", "hyperv", "--kernel", kernel, "--cpus", "1", "--workload", "verify", "--timeout", "600"];
    let (mut arguments, bytes) = (words.map(str::to_owned).to_vec(), if tally.is_long { LARGER } else { SMALL });
    for (name, options) in [("read", "ro"), ("written", "rw")] {
        let file = directory.join(name);
        let content: Vec<u8> = if options == "ro" {
            (0..bytes / 8).flat_map(|word| pattern::word(SEED, word * 8).to_le_bytes()).collect()
        } else {
            vec![0; bytes as usize]
        };
        fs::write(&file, content).with_context(|| file.display().to_string())?;
        arguments.extend(["--disk".into(), format!("{},{options}", text(&file))]);
    }
    let run = guest::run(&arguments)?;
    let whole = if run.success { Ok(()) } else { Err(anyhow::Error::msg(run.text.clone())) };
    tally.check("hyperv: the run that verifies succeeds", whole);
    tally.check("hyperv: the image keeps to the interface while data moves", polite(&run));
    for disk in run.events("disk") {
        let title = format!("hyperv: {}", disk["name"].as_str().unwrap_or("?"));
        let read = disk["sha256"].is_string() && disk["sha256"] == disk["sha256_expected"];
        tally.check(&format!("{title}: read whole, with the host's SHA-256"), holds(read, disk));
    }
    let written =
        run.events("disk").any(|disk| disk["write_bytes"].as_u64() > Some(0) && disk["write_verified"] == true);
    tally.check("hyperv: what is written is found in the guest and by the host", holds(written, &Value::Null));
    Ok(())
}

fn holds(what: bool, seen: &Value) -> Result<()> {
    ensure!(what, "{seen}");
    Ok(())
}

fn found(run: &Run) -> Result<()> {
    let mut disks: Vec<_> =
        run.events("disk").map(|disk| (disk["driver"].as_str().unwrap_or("?"), disk["block_size"].as_u64())).collect();
    disks.sort_unstable();
    ensure!(disks == [("storvsc", Some(512)), ("storvsc", Some(4096))], "{disks:?}");
    Ok(())
}

/// The model in the machine says on standard error what the guest did against the interface.
fn polite(run: &Run) -> Result<()> {
    ensure!(!run.text.contains("breaks the interface"), "{}", run.text);
    Ok(())
}

fn hotplug(kernel: &str, directory: &Path, tally: &mut Tally) -> Result<()> {
    let socket = directory.join("vmm");
    // The disk of a machine of generation 1: an IDE controller's, by its storage channel. There is no IDE controller to find it by.
    let ide = directory.join("ide");
    fs::write(&ide, vec![0x1d; SMALL as usize]).with_context(|| ide.display().to_string())?;
    let ide = json!({"file": ide, "serial": "generation1", "ide": [0, 1], "read_only": true});
    let (control, ide) = (format!("--vmm-arg=--control={}", text(&socket)), format!("--vmm-arg=--disk={ide}"));
    let arguments = ["--on", "hyperv", "--kernel", kernel, "--timeout", "900", &control, &ide];
    let mut image = Conversation::start(&arguments.map(str::to_owned))?;
    let mut machine = Machine::connect(&socket)?;
    let mut first = || -> Result<()> {
        let disks = image.ask("disks")?;
        let of_ide = |line: &&str| line.contains("generation1") && line.contains("ide 0:1");
        ensure!(disks.lines().any(|line| of_ide(&line)), "{disks}");
        image.says("read storvsc2 0", "1d 1d 1d")
    };
    tally.check("hyperv: the disk of generation 1 is found by its storage channel, and read", first());
    let file = directory.join("third");
    let content: Vec<u8> = (0..MIB / 8).flat_map(|word| pattern::word(SEED, word * 8).to_le_bytes()).collect();
    fs::write(&file, content).with_context(|| file.display().to_string())?;
    let mut steps = || -> Result<()> {
        let answer = machine.ask(&json!({"add": {"file": file, "serial": "third"}}))?;
        let news = image.news("storvsc3 has arrived")?;
        ensure!(news.contains("serial third"), "{news}");
        image.says(&format!("load storvsc3 0 {} {SEED}", MIB / 512), "load: reads of")?;
        thread::sleep(WHILE);
        let load = Counts::of(&image.ask("loads")?, "storvsc3")?;
        ensure!(load.reads > 0 && load.wrong == 0 && load.failed == 0, "{}", load.line);
        machine.ask(&json!({"remove": {"lun": answer["lun"]}}))?;
        let news = image.news("storvsc3 has left")?;
        ensure!(!news.contains("PROBLEM"), "{news}");
        image.says("read storvsc3 0", "there is no such disk")
    };
    tally.check("hyperv: a third disk is plugged in while it runs, read under load, and pulled out", steps());
    tally.check("hyperv: the session ends well", image.quit());
    Ok(())
}

/// The machine's own socket.
struct Machine {
    output: UnixStream,
    input: BufReader<UnixStream>,
}

impl Machine {
    fn connect(socket: &Path) -> Result<Self> {
        let start = Instant::now();
        while !socket.exists() && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
        let output = UnixStream::connect(socket).context("the machine does not answer")?;
        output.set_read_timeout(Some(PATIENCE))?;
        let input = BufReader::new(output.try_clone()?);
        Ok(Self { output, input })
    }

    fn ask(&mut self, command: &Value) -> Result<Value> {
        writeln!(self.output, "{command}")?;
        let mut line = String::new();
        self.input.read_line(&mut line).context("the machine is silent")?;
        let answer: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        ensure!(answer["error"].is_null(), "{command}: {}", answer["error"]);
        Ok(answer["return"].clone())
    }
}
