//! Power cuts on the real thing: QEMU is killed while the image writes and flushes disks that have a write cache (`docs/power.md`). What the image
//! said to be durable must be there, byte for byte, whatever of the rest is lost, and nothing that was never written.
//!
//! A killed QEMU loses nothing that it had handed on: the disks are served by this program, which knows what was durable at each moment. So a run
//! is one real cut, and many more that are looked at later, at any moment before it.

mod cut;
mod fuse;
mod judge;
mod log;
mod nbd;
mod plan;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use self::cut::{BYTES, PLACES, Place, Run, START};
use self::judge::Judge;
use self::log::{Event, Loss, Replay};
use self::nbd::Story;
use self::plan::{Label, Random, SECTOR, WORKERS, disk_number};
use super::tally::Tally;
use crate::host::{install, interrupt, workspace};
use crate::image::build::{self, Image};
use crate::report::session::Session as Said;

/// Moments of a run that are looked at, besides its end.
const MOMENTS: u64 = 9;
/// Events from the first acknowledgements to the cut, at most.
const EVENTS: u64 = 8000;
/// Generations of a worker in the run that is not cut.
const WHOLE: u64 = 40;

/// What was seen of one disk in all runs.
#[derive(Default, Clone)]
struct Seen {
    /// Moments at which there was a cut, real or not; of those, how many had something to lose, and how many had a flush under way.
    moments: u64,
    losing: u64,
    flushing: u64,
    acked: u64,
    wrong: Vec<String>,
}

pub fn group(tally: &mut Tally) -> Result<()> {
    install::tools(&install::QEMU)?;
    let directory = workspace::scratch()?;
    let image = build::build(None, directory.path())?;
    let (cuts, seed) = (tally.cuts, tally.seed);
    let mut session = Session { image: &image, directory: directory.path(), random: Random(seed), disks: blank() };
    tally.check(
        "the workload comes to its end, with merged requests, and all that it wrote is there",
        session.whole(tally.seed),
    );
    let seen = session.cuts(cuts, seed)?;
    for (place, seen) in PLACES.iter().zip(&seen) {
        let name = name(place);
        let Seen { moments, losing, flushing, acked, .. } = seen;
        println!(
            "        {name}: {cuts} cuts, and {moments} moments in all that were looked at: {losing} with something to lose, {flushing} with \
             a flush under way; {acked} generations acknowledged"
        );
        tally.check(
            &format!("{name}: after every power cut all that was acknowledged is there, and nothing else"),
            fine(seen),
        );
    }
    for (acks, what) in
        [("unflushed", "without a flush"), ("early", "by a flush that began before its writes were done")]
    {
        let seen = session.run(acks, seed.wrapping_add(1 << 32), Some(EVENTS / 4));
        let (seen, _) = seen.with_context(|| format!("the control {acks}"))?;
        for (place, seen) in PLACES.iter().zip(&seen) {
            let title = format!("{}: control: what is acknowledged {what} is found to be lost", name(place));
            tally.check(&title, caught(seen, "lost"));
        }
    }
    tally.check(
        "control: a sector of never-written content is found, on a disk that a cut has left",
        session.never_written(),
    );
    Ok(())
}

fn name(place: &Place) -> String {
    format!("{}, {}", place.bus, if place.cached { "through a page cache" } else { "through its queue" })
}

fn blank() -> Vec<Vec<u8>> {
    vec![vec![0; BYTES]; PLACES.len()]
}

fn fine(seen: &Seen) -> Result<()> {
    if let Some(wrong) = seen.wrong.first() {
        bail!("{} wrong, the first: {wrong}", seen.wrong.len());
    }
    ensure!(seen.losing > 0, "at no cut was there anything to lose: nothing was tested");
    Ok(())
}

fn caught(seen: &Seen, wanted: &str) -> Result<()> {
    let first = seen.wrong.first().context("it was not noticed")?;
    ensure!(first.contains(wanted), "{first}");
    Ok(())
}

struct Session<'a> {
    image: &'a Image,
    directory: &'a Path,
    random: Random,
    /// What the disks hold when the next run begins: what the last cut has left.
    disks: Vec<Vec<u8>>,
}

impl Session<'_> {
    fn run(&mut self, acks: &str, seed: u64, cut: Option<u64>) -> Result<(Vec<Seen>, Said)> {
        let generations = if cut.is_some() { 1_000_000 } else { WHOLE };
        let run = Run { image: self.image, directory: self.directory, seed, acks, generations, cut };
        let (stories, said) = run.run(&self.disks)?;
        let mut all = Vec::new();
        for ((place, story), disk) in PLACES.iter().zip(&stories).zip(&mut self.disks) {
            let mut seen = Seen::default();
            look(place, story, seed, disk, &mut self.random, &mut seen);
            all.push(seen);
        }
        Ok((all, said))
    }

    /// Without a cut.
    fn whole(&mut self, seed: u64) -> Result<()> {
        let (seen, said) = self.run("flushed", seed.wrapping_add(1 << 33), None)?;
        for (place, seen) in PLACES.iter().zip(seen) {
            ensure!(seen.wrong.is_empty(), "{}: {}", name(place), seen.wrong[0]);
            let merged =
                said.merged.iter().find(|(serial, _)| serial == place.serial).context("no word of its queue")?.1;
            ensure!(merged > 0 || place.serial != PLACES[0].serial, "{}: nothing was merged", name(place));
            ensure!(seen.acked == WHOLE * WORKERS, "{}: {} generations were acknowledged", name(place), seen.acked);
        }
        Ok(())
    }

    fn cuts(&mut self, cuts: u32, seed: u64) -> Result<Vec<Seen>> {
        let mut all = vec![Seen::default(); PLACES.len()];
        for number in 0..u64::from(cuts) {
            interrupt::check()?;
            let events = self.random.below(EVENTS);
            let one = self.run("flushed", seed.wrapping_add(number), Some(events));
            let (one, _) =
                one.with_context(|| format!("cut {number}, {events} events after the first acknowledgements"))?;
            for (all, one) in all.iter_mut().zip(one) {
                all.moments += one.moments;
                all.losing += one.losing;
                all.flushing += one.flushing;
                all.acked += one.acked;
                all.wrong.extend(one.wrong);
            }
        }
        Ok(all)
    }

    /// One sector of one disk, as one of the runs might have written it but did not.
    fn never_written(&mut self) -> Result<()> {
        let before = self.disks[0].clone();
        let mut left = before.clone();
        let judge = Judge::new(disk_number(PLACES[0].serial), 1, START, before, [0; WORKERS as usize]);
        judge.look(&left, [0; WORKERS as usize]).context("before")?;
        let label =
            Label { disk: disk_number(PLACES[0].serial), sector: START + 20, seed: 2, worker: 1, generation: 1 };
        left[label.sector as usize * SECTOR..][..SECTOR].copy_from_slice(&label.bytes());
        let said = judge.look(&left, [0; WORKERS as usize]).err().context("it was not noticed")?.to_string();
        ensure!(said.contains("never written"), "{said}");
        Ok(())
    }
}

/// Looks at a disk as it would have been after a cut at several moments of its story, and at the end, when there was one. `disk` is what it held
/// before, and then what this cut has left.
fn look(place: &Place, story: &Story, seed: u64, disk: &mut Vec<u8>, random: &mut Random, seen: &mut Seen) {
    let mut acked = Replay::new(Vec::new());
    story.events.iter().filter(|event| matches!(event, Event::Ack { .. })).for_each(|event| acked.take(event));
    seen.acked = acked.acked.iter().sum();
    let judge = Judge::new(disk_number(place.serial), seed, START, disk.clone(), acked.acked);
    let mut moments: Vec<usize> = (0..MOMENTS).map(|_| random.below(story.events.len() as u64) as usize).collect();
    moments.push(story.events.len());
    moments.sort_unstable();
    let mut replay = Replay::new(core::mem::take(disk));
    let mut at = 0;
    for moment in moments {
        story.events[at..moment].iter().for_each(|event| replay.take(event));
        at = moment;
        seen.moments += 1;
        seen.losing += u64::from(replay.volatile() > 0);
        seen.flushing += u64::from(replay.is_flushing());
        for loss in Loss::EVERY {
            let left = replay.cut(loss, random);
            if let Err(error) = judge.look(&left, replay.acked) {
                let all = story.events.len();
                seen.wrong
                    .push(format!("{error} (seed {seed}, event {moment} of {all}, {loss:?} of what was volatile)"));
            }
            *disk = left;
        }
    }
    if story.overlaps > 0 {
        seen.wrong.push(format!("{} writes came while others to the same sectors were under way", story.overlaps));
    }
}
