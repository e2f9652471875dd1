//! The backend goes and comes again under load: its driver is taken from the device and given it again, its state is changed in xenstore, and
//! it does not answer until the recovery ladder's last rung has the disk connected again.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{BYTES, SEED, Stage, image, vbd};
use crate::suite::conversation::Conversation;
use crate::suite::hotplug::Counts;
use crate::suite::tally::Tally;
use crate::xen::domain::Domain;

const DISK: &str = "xenblk0";
/// How long a load goes on before it is looked at.
const WHILE: Duration = Duration::from_millis(700);
/// How long it may take until requests end again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Milliseconds that a request may take where the ladder is tried.
const DEADLINE: u32 = 2000;

/// Something that happens to the backend, and what the image is to make of it.
type Step = fn(&mut Stage, &mut Conversation) -> Result<()>;

pub fn domains() -> Vec<Domain> {
    let line = format!("disks=1 disk=xvda,rw,0,{BYTES}");
    let disks = || vec![vbd("/dev/vda", 0, true)];
    vec![image("restart", 2, disks(), &line), image("ladder", 2, disks(), &format!("{line} deadline_ms={DEADLINE}"))]
}

pub fn checks(stage: &mut Stage, tally: &mut Tally) -> Result<()> {
    let [restart, ladder] = &domains()[..] else { return Ok(()) };
    let mut image = stage.begin(restart)?;
    begin(&mut image)?;
    let steps: [(&str, Step); 3] = [
        ("the backend's driver is taken away and comes again under load, and no request fails", rebound),
        ("the backend closes and begins again under load, and no request fails", closed),
        ("a reset asked for connects the disk again", reset),
    ];
    for (title, step) in steps {
        let result = step(stage, &mut image);
        let is_good = result.is_ok();
        tally.check(&format!("xen: {title}"), result);
        if !is_good {
            break;
        }
    }
    tally.check("xen: after restarts of the backend nothing is left in the heaps", stage.quit(image, restart));
    let mut image = stage.begin(ladder)?;
    begin(&mut image)?;
    tally.check("xen: a backend that does not answer is connected again by the ladder", climbed(stage, &mut image));
    tally.check("xen: after the ladder nothing is left in the heaps", stage.quit(image, ladder));
    Ok(())
}

/// Reads and writes, all of the disk.
fn begin(image: &mut Conversation) -> Result<()> {
    image.says(&format!("load {DISK} 0 {} {SEED}", BYTES / 512), "load: reads and writes")?;
    thread::sleep(WHILE);
    goes_on(image, 0).map(drop)
}

/// Waits until requests end that did not before; nothing may be wrong. How many have failed.
fn goes_on(image: &mut Conversation, failed: u64) -> Result<Counts> {
    let start = Instant::now();
    let before = Counts::of(&image.ask("loads")?, DISK)?;
    loop {
        thread::sleep(WHILE);
        let now = Counts::of(&image.ask("loads")?, DISK)?;
        ensure!(now.wrong == 0 && now.failed <= failed, "{}", now.line);
        if now.reads > before.reads + 100 {
            return Ok(now);
        }
        ensure!(start.elapsed() < PATIENCE, "it does not go on: {}", now.line);
    }
}

/// How often the disk was connected again.
fn reconnects(image: &mut Conversation) -> Result<u64> {
    let answer = image.ask("xen")?;
    let count = answer.split_once("connected again ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    count.context(answer)
}

/// Waits until the disk was connected again, since that had been done `before` times.
fn connected(image: &mut Conversation, before: u64) -> Result<()> {
    let start = Instant::now();
    while reconnects(image)? <= before {
        ensure!(start.elapsed() < PATIENCE, "it is not connected again: {}", image.ask("loads")?);
        thread::sleep(WHILE);
    }
    Ok(())
}

/// The backend's device, as its driver calls it.
const DEVICE: &str =
    "device=$(basename /sys/bus/xen-backend/devices/vbd-*-51712); driver=/sys/bus/xen-backend/drivers/vbd";

fn rebound(stage: &mut Stage, image: &mut Conversation) -> Result<()> {
    stage.lab.shell(&format!("{DEVICE}; echo $device >$driver/unbind && sleep 1 && echo $device >$driver/bind"))?;
    goes_on(image, 0).map(drop)
}

fn closed(stage: &mut Stage, image: &mut Conversation) -> Result<()> {
    let before = reconnects(image)?;
    stage.lab.shell(
        "xenstore-write $(xenstore-ls -f /local/domain/0/backend/vbd | sed -n 's/ = .*//; /51712.state$/p') 5",
    )?;
    connected(image, before)?;
    goes_on(image, 0).map(drop)
}

fn reset(_: &mut Stage, image: &mut Conversation) -> Result<()> {
    let before = reconnects(image)?;
    image.says(&format!("reset {DISK} controller"), "and reading goes on")?;
    connected(image, before)?;
    goes_on(image, 0).map(drop)
}

fn climbed(stage: &mut Stage, image: &mut Conversation) -> Result<()> {
    let before = reconnects(image)?;
    stage.lab.shell(&format!("{DEVICE}; echo $device >$driver/unbind"))?;
    thread::sleep(Duration::from_millis(2 * u64::from(DEADLINE)));
    stage.lab.shell(&format!("{DEVICE}; echo $device >$driver/bind"))?;
    connected(image, before)?;
    let after = goes_on(image, u64::MAX)?;
    ensure!(after.line.contains("times TimedOut"), "{}", after.line);
    // What failed has failed: no more of them.
    goes_on(image, after.failed).map(drop)
}
