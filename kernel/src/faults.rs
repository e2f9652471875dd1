//! The fault workload: every disk is written and read by several tasks at once, for a time, whatever becomes of the requests. What each disk has
//! acknowledged is reported, so that the host can look for it. Task context.
//!
//! The region that may be written has places of one block of 4 KiB. A place is written with the pattern of the seed plus a count that grows. It is known
//! as long as its writes succeed; after one that failed, anything may be there until the next one that succeeds.
//!
//! Disks may come, go and change their size meanwhile: one that goes is reported then, one that comes has its tasks at once.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use undercroft_block::adapter::Disk as Adapter;
use undercroft_block::queue::{BlockQueue, QueueStats, Rung};
use undercroft_block::{BlockDevice, Data, Error, Features};
use undercroft_hal::dma::DmaBuf;
use undercroft_hal::executor::{self, JoinHandle};
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::{Instant, Task};

use crate::disks::{Disk, Disks};
use crate::hotplug::Hotplug;
use crate::json::{Object, Value};
use crate::news::Attention;
use crate::options::Options;
use crate::pattern::{self, Random};
use crate::report::Report;

/// Tasks of each disk, on as many CPUs.
const WORKERS: u64 = 3;
/// Places of each disk at most.
const PLACES: u64 = 64;
const BYTES: u64 = 4096;
/// Requests of one task that failed, after which it ends.
const ENOUGH: u64 = 200;

/// Where and what the tasks of one disk write.
#[derive(Clone, Copy)]
struct Plan {
    start: u64,
    stride: u64,
    places: u64,
    writes: bool,
    block_size: u64,
    seed: u64,
}

/// A place: its first byte, and what was last acknowledged there.
#[derive(Clone, Copy)]
struct Place {
    at: u64,
    known: Option<u64>,
    /// The disk ends before it: it is not tried again.
    beyond: bool,
}

/// What one task saw.
struct Seen {
    writes: u64,
    reads: u64,
    failed: u64,
    mismatches: u64,
    /// The first of those.
    wrong: Option<Wrong>,
    longest: Duration,
    places: Vec<Place>,
}

/// A read that did not find what was written: where, the count of what was, and the first wrong word and its place.
#[derive(Clone, Copy)]
struct Wrong {
    at: u64,
    known: u64,
    /// What has been written by then, in all.
    count: u64,
    seed: u64,
    word: u64,
    offset: u64,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, known, count, seed, word, offset } = *self;
        write!(f, "at {at} was written {known}, and {offset} bytes from there is {word:#x}, ")?;
        let is = |count: &u64| pattern::matches(&word.to_le_bytes(), seed.wrapping_add(*count), at + offset);
        match (0..=count).find(is) {
            Some(count) => write!(f, "of {count}"),
            None => write!(f, "of none up to {count}"),
        }
    }
}

/// Tasks that run, and who waits for their end.
#[derive(Clone)]
struct Running {
    tasks: Arc<AtomicUsize>,
    attention: Arc<Attention>,
    /// When they end, once that is known.
    end: Arc<IrqSpinLock<Option<Instant>>>,
}

impl Running {
    fn is_over(&self) -> bool {
        self.end.lock().is_some_and(|end| Instant::now() >= end)
    }

    fn ended(&self) {
        self.tasks.fetch_sub(1, Ordering::AcqRel);
        self.attention.wake();
    }
}

/// The tasks of one disk.
pub(crate) struct Crew(Vec<JoinHandle<Seen>>);

/// Runs the workload on all disks at once.
pub(crate) fn run(cx: &Task, disks: &mut Disks, options: &Options, report: &Report) -> u64 {
    let running = Running {
        tasks: Arc::new(AtomicUsize::new(0)),
        attention: Arc::clone(&disks.attention),
        end: Arc::new(IrqSpinLock::new(Rank::BLOCK, None)),
    };
    let mut hotplug = Hotplug::begin(cx, disks, report);
    let (first, mut crews) = (disks.list.len() as u64, 0);
    loop {
        for disk in disks.list.iter().filter(|disk| disk.crew.borrow().is_none()) {
            *disk.crew.borrow_mut() = Some(Crew(start(cx, disk, options, &running, report)));
            crews += 1;
        }
        if crews >= first + options.arrivals {
            let end = Instant::now() + Duration::from_millis(options.faults_ms);
            running.end.lock().get_or_insert(end);
        }
        cx.wait_until(|| disks.attention.is_wanted() || running.tasks.load(Ordering::Acquire) == 0);
        if !disks.attention.is_wanted() {
            break;
        }
        hotplug.act(cx, disks, report);
    }
    let mut requests = 0;
    for disk in &disks.list {
        let crew = disk.crew.borrow_mut().take();
        requests += crew.map_or(0, |crew| crew.tell(cx, &disk.name, &disk.queue, report));
    }
    requests
}

fn start(cx: &Task, disk: &Disk, options: &Options, running: &Running, report: &Report) -> Vec<JoinHandle<Seen>> {
    let info = disk.device.info();
    let rule = options.disks.iter().find(|rule| rule.serial == disk.device.identity().serial);
    let region = rule.and_then(|rule| rule.writable);
    let (start, length) = region.unwrap_or((0, info.bytes()));
    let places = (length / BYTES).min(PLACES);
    let plan = Plan {
        start,
        stride: length / places.max(1) / BYTES * BYTES,
        places,
        writes: region.is_some(),
        block_size: u64::from(info.block_size),
        seed: options.seed,
    };
    if !BYTES.is_multiple_of(plan.block_size) || !start.is_multiple_of(BYTES) || start + length > info.bytes() {
        report.problem(&"the region is not of whole blocks of 4 KiB on the disk", Some(&disk.name));
        return Vec::new();
    }
    let adapter = Arc::new(Adapter::new(Arc::clone(&disk.device), WORKERS as u16));
    let spawn = |number| {
        let (adapter, ending) = (Arc::clone(&adapter), running.clone());
        running.tasks.fetch_add(1, Ordering::AcqRel);
        let task = executor::spawn_on(cx, number as usize, async move {
            let seen = work(&adapter, plan, number, &ending).await;
            // The disk first: who waits for the task may wait for the disk.
            drop(adapter);
            ending.ended();
            seen
        });
        task.inspect_err(|_| running.ended())
    };
    (0..WORKERS).filter_map(|number| spawn(number).ok()).collect()
}

fn buffer(disk: &Adapter) -> Option<DmaBuf> {
    DmaBuf::new(BYTES as usize, disk.device().info().limits.dma).ok()
}

/// One task: it has every third place for itself.
async fn work(disk: &Adapter, plan: Plan, number: u64, running: &Running) -> Seen {
    let places = (0..plan.places).filter(|place| place % WORKERS == number);
    let places =
        places.map(|place| Place { at: plan.start + place * plan.stride, known: None, beyond: false }).collect();
    let mut seen = Seen { writes: 0, reads: 0, failed: 0, mismatches: 0, wrong: None, longest: Duration::ZERO, places };
    let mut random = Random::new(plan.seed.wrapping_add(number));
    let mut count = 0;
    while !running.is_over() && seen.failed < ENOUGH && seen.places.iter().any(|place| !place.beyond) {
        count += 1;
        // Each place is written and read once in any case, however slow the disk is.
        let all = seen.places.len() as u64;
        let (place, pass) = match (count - 1) / all {
            pass @ (0 | 1) => ((count - 1) % all, Some(pass)),
            _ => (random.below(all), None),
        };
        let place = place as usize;
        if seen.places[place].beyond {
            continue;
        }
        let began = Instant::now();
        let writes = pass.map_or_else(|| random.below(4) > 0, |pass| pass == 0);
        let result = if count % 64 == 0 && plan.writes {
            disk.flush().await
        } else if plan.writes && writes {
            write(disk, plan, &mut seen, place, count).await
        } else {
            read(disk, plan, &mut seen, place, count).await
        };
        seen.longest = seen.longest.max(began.elapsed());
        match result {
            Ok(()) => {}
            Err(Error::Removed) => {
                seen.failed += 1;
                break;
            }
            // The disk has shrunk. That is told once for each place, and is no failure of the disk's.
            Err(Error::OutOfRange) => seen.places[place].beyond = true,
            Err(_) => seen.failed += 1,
        }
    }
    seen
}

async fn write(disk: &Adapter, plan: Plan, seen: &mut Seen, place: usize, count: u64) -> Result<(), Error> {
    let (Some(mut bytes), Some(place)) = (buffer(disk), seen.places.get_mut(place)) else { return Ok(()) };
    pattern::fill(&mut bytes, plan.seed.wrapping_add(count), place.at);
    seen.writes += 1;
    // Until it is known that it succeeded.
    place.known = None;
    disk.write(place.at / plan.block_size, Data::from(bytes)).await?;
    place.known = Some(count);
    Ok(())
}

async fn read(disk: &Adapter, plan: Plan, seen: &mut Seen, place: usize, count: u64) -> Result<(), Error> {
    let (Some(mut bytes), Some(place)) = (buffer(disk), seen.places.get_mut(place)) else { return Ok(()) };
    // What a read does not fill must not look right.
    bytes.fill(0xee);
    seen.reads += 1;
    let data = disk.read(place.at / plan.block_size, Data::from(bytes)).await?;
    let ([piece], Some(known)) = (data.pieces(), place.known) else { return Ok(()) };
    let seed = plan.seed.wrapping_add(known);
    if pattern::matches(piece.bytes(), seed, place.at) {
        return Ok(());
    }
    seen.mismatches += 1;
    let words = piece.bytes().chunks_exact(8).zip((0..).step_by(8));
    let wrong = words.into_iter().find(|(word, offset)| !pattern::matches(word, seed, place.at + offset));
    if let (None, Some((word, offset))) = (seen.wrong, wrong) {
        let word = word.iter().rfold(0, |sum, byte| sum << 8 | u64::from(*byte));
        seen.wrong = Some(Wrong { at: place.at, known, count, seed: plan.seed, word, offset });
    }
    Ok(())
}

/// `BYTE:COUNT` for each place, or `BYTE:?`.
struct Places<'a>(&'a [Seen]);

impl fmt::Display for Places<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for place in self.0.iter().flat_map(|seen| &seen.places) {
            match place.known {
                Some(count) => write!(f, "{space}{}:{count}", place.at)?,
                None => write!(f, "{space}{}:?", place.at)?,
            }
            space = " ";
        }
        Ok(())
    }
}

/// `KIND:COUNT` for each kind of error that there was.
struct Errors<'a>(&'a QueueStats);

impl fmt::Display for Errors<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for (error, count) in Error::ALL.iter().zip(self.0.errors).filter(|(_, count)| *count > 0) {
            write!(f, "{space}{error:?}:{count}")?;
            space = " ";
        }
        Ok(())
    }
}

/// `RUNG:HELPED/ASKED` for each rung that was asked.
struct Rungs<'a>(&'a QueueStats);

impl fmt::Display for Rungs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for (rung, stats) in Rung::ALL.iter().zip(&self.0.rungs).filter(|(_, stats)| stats.asked > 0) {
            write!(f, "{space}{rung:?}:{}/{}", stats.helped, stats.asked)?;
            space = " ";
        }
        Ok(())
    }
}

impl Crew {
    /// Waits for the tasks, and reports what they saw.
    pub(crate) fn tell(self, cx: &Task, name: &str, queue: &BlockQueue, report: &Report) -> u64 {
        let seen: Vec<Seen> = self.0.into_iter().map(|task| cx.block_on(task)).collect();
        tell(name, queue, &seen, report)
    }
}

fn tell(name: &str, queue: &BlockQueue, seen: &[Seen], report: &Report) -> u64 {
    let stats = queue.stats();
    let sum = |what: fn(&Seen) -> u64| seen.iter().map(what).sum::<u64>();
    let (writes, reads, failed, mismatches) =
        (sum(|seen| seen.writes), sum(|seen| seen.reads), sum(|seen| seen.failed), sum(|seen| seen.mismatches));
    let longest = seen.iter().map(|seen| seen.longest).max().unwrap_or_default().as_millis() as u64;
    if mismatches > 0 {
        report.problem(&format_args!("{mismatches} reads did not find what was written"), Some(name));
        for wrong in seen.iter().filter_map(|seen| seen.wrong) {
            report.problem(&wrong, Some(name));
        }
    }
    // A failed one was told its submitter; one that is missing was not.
    if stats.accepted != stats.completed {
        let (accepted, completed) = (stats.accepted, stats.completed);
        report.problem(&format_args!("{accepted} requests, of which {completed} completed"), Some(name));
    }
    let (errors, rungs, places) = (Errors(&stats), Rungs(&stats), Places(seen));
    if !report.is_json() {
        report.text(format_args!(
            "  {}: {writes} writes, {reads} reads, {failed} failed ({errors}), the longest took {longest} ms; {} overdue, {} of them \
             finished late, {} sent again; recovery {rungs}",
            name, stats.overdue, stats.late, stats.resent,
        ));
        return writes + reads;
    }
    report.json(&Object {
        event: Some("faults"),
        fields: &[
            ("name", Value::Text(&name)),
            ("writes", Value::Number(writes)),
            ("reads", Value::Number(reads)),
            ("failed", Value::Number(failed)),
            ("mismatches", Value::Number(mismatches)),
            ("longest_ms", Value::Number(longest)),
            ("accepted", Value::Number(stats.accepted)),
            ("completed", Value::Number(stats.completed)),
            ("overdue", Value::Number(stats.overdue)),
            ("late", Value::Number(stats.late)),
            ("resent", Value::Number(stats.resent)),
            ("orphans", Value::Number(stats.orphans)),
            ("read_only", Value::Bool(queue.info().features.contains(Features::READ_ONLY))),
            ("errors", Value::Words(&errors)),
            ("rungs", Value::Words(&rungs)),
            ("places", Value::Words(&places)),
        ],
    });
    writes + reads
}
