//! A disk that comes and goes by `xl block-attach` and `xl block-detach`, under load.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{BYTES, SEED, Stage, image, vbd};
use crate::suite::conversation::Conversation;
use crate::suite::hotplug::Counts;
use crate::suite::tally::Tally;
use crate::xen::domain::Domain;

/// How long a load goes on before it is looked at.
const WHILE: Duration = Duration::from_millis(1000);
/// The disk that stays, and the one that comes, as the first domain has it.
const STAYS: &str = "xenblk0";
const VISITOR: &str = "/dev/vdc";

pub fn domain() -> Domain {
    image("hotplug", 2, vec![vbd("/dev/vda", 0, true)], "disks=1 disk=xvda,ro")
}

pub fn checks(stage: &mut Stage, tally: &mut Tally) -> Result<()> {
    let domain = domain();
    let mut image = stage.begin(&domain)?;
    let blocks = BYTES / 512;
    image.says(&format!("load {STAYS} 0 {blocks} {SEED}"), "load: reads")?;
    for (name, title) in [("xenblk1", "a disk"), ("xenblk2", "the same once more")] {
        let result = come(stage, &mut image, name).with_context(|| name.to_owned());
        let found = format!("xen: {title} that is attached is found, and read under load");
        tally.check(&found, result).context(found)?;
        let result = go(stage, &mut image, name).with_context(|| name.to_owned());
        let gone = format!("xen: {title} that is detached under load leaves, and every request ends");
        tally.check(&gone, result).context(gone)?;
    }
    let stayed = Counts::of(&image.ask(&format!("unload {STAYS}"))?, STAYS).and_then(|load| {
        ensure!(load.reads > 0 && load.wrong == 0 && load.failed == 0, "{}", load.line);
        Ok(())
    });
    tally.check("xen: the other disk noticed nothing of that", stayed);
    tally.check("xen: hot plug ends well, and nothing is left in the heaps", stage.quit(image, &domain));
    Ok(())
}

fn come(stage: &mut Stage, image: &mut Conversation, name: &str) -> Result<()> {
    stage.lab.shell(&format!("steady xl block-attach hotplug {}", vbd(VISITOR, 1, false).specification()))?;
    let news = image.news(&format!("{name} has arrived"))?;
    ensure!(news.contains("serial xvdb, 16 MiB in 32768 blocks of 512 bytes, read only"), "{news}");
    // The negative control: wrong bytes are noticed.
    image.says(&format!("verify {name} 0 64 {}", SEED + 1), "DO NOT HOLD")?;
    image.says(&format!("load {name} 0 32768 {SEED}"), "load: reads")?;
    thread::sleep(WHILE);
    let load = Counts::of(&image.ask("loads")?, name)?;
    ensure!(load.reads > 0 && load.wrong == 0 && load.failed == 0, "{}", load.line);
    Ok(())
}

fn go(stage: &mut Stage, image: &mut Conversation, name: &str) -> Result<()> {
    stage.lab.shell("steady xl block-detach hotplug xvdb")?;
    let news = image.news(&format!("{name} has left"))?;
    let load = Counts::of(&news, name)?;
    ensure!(load.is_over() && load.wrong == 0 && load.line.contains("times Removed"), "{}", load.line);
    ensure!(!news.contains("PROBLEM"), "{news}");
    image.says(&format!("read {name} 0"), "there is no such disk")
}
