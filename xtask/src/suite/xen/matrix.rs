//! Kinds of disks and what rings, queues and grants can be: for each domain the backend is loaded with its own settings, data goes both ways and
//! is compared by the other side, and xl sees how the domain ended.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};

use super::{BYTES, MIB, PATIENCE, Stage, image, vbd};
use crate::disk::pattern;
use crate::disk::region::Region;
use crate::suite::conversation::Conversation;
use crate::suite::tally::Tally;
use crate::xen::domain::{Domain, Vbd};
use crate::xen::lab::End;

/// A file of the first domain's, which it serves by a loop device.
const RAW: &str = "/run/raw";
/// Bytes that are written at the beginning of each disk.
const WRITTEN: u64 = 4 * MIB;
/// Of those, discarded again: from, and how many.
const DISCARDED: (u64, u64) = (2 * MIB, MIB);
/// Seed of what is written.
const SEED: u64 = 21;

/// How a domain is ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Quit,
    Shutdown,
    Reboot,
    Interrupt,
}

struct Case {
    name: String,
    cpus: u32,
    /// What the image asks for: rings, and the power of two of their pages.
    asks: (u32, u32),
    /// Settings of the backend: the same, and whether it keeps grants mapped.
    offers: (u32, u32, bool),
    /// The first disk; the second is one with blocks of 4096 bytes.
    disk: &'static str,
    is_second_writable: bool,
    last: Last,
}

impl Case {
    fn domain(&self) -> Domain {
        let disks: Vec<Vbd> = vec![vbd(self.disk, 0, true), vbd("/dev/vdb", 1, self.is_second_writable)];
        let second = if self.is_second_writable { format!("rw,0,{BYTES}") } else { "ro".into() };
        let (queues, order) = self.asks;
        let line = format!("disks=2 disk=xvda,rw,0,{BYTES} disk=xvdb,{second} rings={queues},{order}");
        image(&self.name, self.cpus, disks, &line)
    }

    /// Rings, and the power of two of their pages.
    fn agreed(&self) -> (u32, u32) {
        (self.asks.0.min(self.offers.0).min(self.cpus), self.asks.1.min(self.offers.1))
    }
}

/// Each item once; `is_long`: all of them with each other.
fn cases(is_long: bool) -> Vec<Case> {
    let base = |name: &str| Case {
        name: name.into(),
        cpus: 2,
        asks: (2, 4),
        offers: (2, 4, true),
        disk: "/dev/vda",
        is_second_writable: true,
        last: Last::Quit,
    };
    let mut all = vec![
        Case {
            offers: (1, 0, false),
            cpus: 1,
            disk: RAW,
            is_second_writable: false,
            last: Last::Shutdown,
            ..base("least")
        },
        Case { last: Last::Reboot, ..base("most") },
        Case { asks: (1, 2), offers: (2, 3, true), last: Last::Interrupt, ..base("middle") },
        Case { offers: (2, 3, false), ..base("fleeting") },
    ];
    if is_long {
        for (queues, order, persistent, disk) in (0..40).map(|n| (n % 2 + 1, n / 2 % 5, n / 10 % 2 == 0, n / 20)) {
            let disk = ["/dev/vda", RAW][disk as usize];
            let name = format!(
                "all-{queues}-{order}-{}-{}",
                u8::from(persistent),
                disk.trim_start_matches('/').replace('/', "-")
            );
            all.push(Case { cpus: queues, asks: (queues, order), offers: (2, 4, persistent), disk, ..base(&name) });
        }
    }
    all
}

pub fn domains(is_long: bool) -> Vec<Domain> {
    cases(is_long).iter().map(Case::domain).collect()
}

pub fn checks(stage: &mut Stage, is_long: bool, tally: &mut Tally) -> Result<()> {
    for case in cases(is_long) {
        let domain = case.domain();
        let name = &case.name;
        let mut check = |what: &str, result: Result<()>| {
            let what = format!("xen, {name}: {what}");
            tally.check(&what, result).context(what)
        };
        check("the backend is loaded with its settings", load(stage, &case))?;
        let mut image = stage.begin(&domain)?;
        check("rings, blocks and protection are as agreed", found(&case, &mut image))?;
        check("what the first domain has written is read", read(stage, &case, &mut image))?;
        check(
            "what is written is found by the image, the first domain and the host",
            written(stage, &case, &mut image),
        )?;
        if case.disk != RAW {
            check("what is discarded is a hole on the host", discarded(stage, &mut image))?;
        }
        check("xl sees why the domain ends", ended(stage, &case, image, &domain))?;
    }
    Ok(())
}

/// Loads the backend anew, and puts something on the first disk that nobody else knows.
fn load(stage: &mut Stage, case: &Case) -> Result<()> {
    let (queues, order, persistent) = case.offers;
    let options =
        format!("max_queues={queues} max_ring_page_order={order} feature_persistent={}", u8::from(persistent));
    stage.lab.shell(&format!("rmmod xen_blkback; insmod /modules/xen?blkback.ko {options}"))?;
    stage.lab.shell(&format!("dd if=/dev/urandom of={} bs=1M count={} conv=fsync", case.disk, BYTES / MIB))?;
    Ok(())
}

fn found(case: &Case, image: &mut Conversation) -> Result<()> {
    let answer = image.ask("disks")?;
    let line = |name: &str| answer.lines().find(|line| line.trim_start().starts_with(name)).context(answer.clone());
    let (queues, order) = case.agreed();
    let (pages, entries) = (1 << order, 32 << order);
    for (name, blocks) in [("xenblk0:", "32768 blocks of 512 bytes"), ("xenblk1:", "4096 blocks of 4096 bytes")] {
        let line = line(name)?;
        let wanted = [
            blocks.into(),
            format!(" {queues} queues, {} deep", queues * entries),
            format!("ring-pages:{pages} entries:{entries}"),
        ];
        ensure!(wanted.iter().all(|part: &String| line.contains(part)), "{line} has not all of {wanted:?}");
    }
    ensure!(!line("xenblk0:")?.contains("read only"), "{answer}");
    ensure!(line("xenblk1:")?.contains("read only") != case.is_second_writable, "{answer}");
    Ok(())
}

/// The SHA-256 of the first bytes of what the first domain has, not of what its page cache remembers: the backend goes past that.
fn sum(stage: &mut Stage, place: &str, bytes: u64) -> Result<String> {
    let answer = stage.lab.shell(&format!("echo 3 >/proc/sys/vm/drop_caches; head -c {bytes} {place} | sha256sum"))?;
    answer.split_whitespace().next().map(str::to_owned).context(answer.clone())
}

fn read(stage: &mut Stage, case: &Case, image: &mut Conversation) -> Result<()> {
    for (name, place) in [("xenblk0", case.disk), ("xenblk1", "/dev/vdb")] {
        image.says(&format!("verify {name}"), &sum(stage, place, BYTES)?)?;
    }
    Ok(())
}

fn written(stage: &mut Stage, case: &Case, image: &mut Conversation) -> Result<()> {
    // The last is larger than any request; between the others a request begins to carry its segments in pages of their own.
    for pages in [1, 11, 12, 32, WRITTEN / 4096] {
        image.says(&format!("write xenblk0 0 {} {SEED}", pages * 8), "read back equal")?;
    }
    let region = Region { start: 0, length: WRITTEN };
    let bytes: Vec<u8> = (0..WRITTEN / 8).flat_map(|word| pattern::word(SEED, word * 8).to_le_bytes()).collect();
    let wanted = crate::disk::digest::sha256(&bytes);
    let seen = sum(stage, case.disk, WRITTEN)?;
    ensure!(seen == wanted, "the first domain finds something else");
    if case.disk != RAW {
        let mismatch = pattern::first_mismatch(&mut File::open(&stage.files[0])?, SEED, region)?;
        ensure!(mismatch.is_none(), "the host finds something else, first at {mismatch:?}");
    }
    if case.is_second_writable {
        image.says(&format!("write xenblk1 64 256 {SEED}"), "read back equal")?;
        let mismatch =
            pattern::first_mismatch(&mut File::open(&stage.files[1])?, SEED, Region { start: 64 * 4096, length: MIB })?;
        ensure!(mismatch.is_none(), "the host finds something else on the second, first at {mismatch:?}");
    } else {
        image.says("write xenblk1 64 256", "error")?;
    }
    Ok(())
}

fn discarded(stage: &mut Stage, image: &mut Conversation) -> Result<()> {
    let blocks = |stage: &Stage| -> Result<u64> { Ok(stage.files[0].metadata()?.blocks()) };
    let before = blocks(stage)?;
    let (start, length) = DISCARDED;
    image.says(&format!("discard xenblk0 {} {}", start / 512, length / 512), "discarded")?;
    let after = blocks(stage)?;
    ensure!(after + length / 512 <= before, "the file has {after} blocks of 512 bytes, and had {before}");
    image.says(&format!("verify xenblk0 0 {} {SEED}", start / 512), " hold the pattern")
}

fn ended(stage: &mut Stage, case: &Case, image: Conversation, domain: &Domain) -> Result<()> {
    let name = &case.name;
    let wanted = match case.last {
        Last::Quit => return stage.quit(image, domain),
        Last::Shutdown => {
            stage.lab.shell(&format!("steady xl shutdown {name}"))?;
            End::PowerOff
        }
        Last::Reboot => {
            stage.lab.shell(&format!("steady xl reboot {name}"))?;
            End::Reboot
        }
        Last::Interrupt => {
            stage.lab.shell(&format!("steady xl trigger {name} nmi"))?;
            End::Crash
        }
    };
    if wanted != End::Crash {
        image.end()?;
    }
    let end = stage.lab.end(domain, PATIENCE)?;
    ensure!(end == wanted, "the domain ended by {end:?}");
    Ok(())
}
