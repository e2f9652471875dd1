//! The script of block devices.

use std::any::Any;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use undercroft_block::queue::{BlockQueue, Config as QueueConfig};
use undercroft_block::{BlockDevice, Data, Features, Op, Refusal, Request, Tag};
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::{Instant, Task};
use undercroft_hosts::{Config, Disk, Machine, Random, Schedule};
use undercroft_timer::timers;

use super::Rules;
use super::bus::{Kind, Plug, settle};
use super::oracle::{Oracle, fill};
use super::sink::{Back, Ended, Sink};
use crate::{Bytes, trace};

/// Sectors of each disk.
const SECTORS: u64 = 1024;
/// Operations under way at most.
const MOST: usize = 48;

/// Short times, so that simulated hours are few.
pub const TIMES: QueueConfig = QueueConfig {
    timeout: Duration::from_millis(100),
    rungs: [Duration::from_millis(10), Duration::from_millis(20), Duration::from_millis(30), Duration::from_millis(40)],
    waiting: 64,
    submitters: 1,
};
/// How long a request may take: its own time, and that of every rung, for those that are in its way too.
const BOUND: u64 = 20_000_000_000;

/// An operation under way.
struct Asked {
    disk: usize,
    op: Op,
    range: std::ops::Range<u64>,
    fua: bool,
    begun: u64,
    since: u64,
    tag: Option<Tag>,
}

/// A disk at work.
struct Unit {
    queue: BlockQueue,
    plug: Plug,
    _keeps: Vec<Box<dyn Any>>,
}

struct Run<'a> {
    task: &'a Task,
    machine: &'a Rc<Machine>,
    rules: Rules,
    units: Vec<Unit>,
    oracles: &'a mut [Oracle],
    sink: Arc<Sink>,
    asked: BTreeMap<u64, Asked>,
    next: &'a mut u64,
    /// Something happened for which requests may fail.
    excused: bool,
    lied: bool,
    /// Time in which the machine stood still.
    paused: u64,
}

/// What ended a part of a script.
enum Part {
    Over,
    Cut,
}

/// Runs a script on disks on these buses.
///
/// # Panics
/// If anything does not hold.
pub fn disks(kinds: &[Kind], rules: Rules, bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let (how, seed, mut next) = (bytes.u16(), bytes.u16(), 1);
    let disks: Vec<Disk> = kinds.iter().map(|_| Disk::new(SECTORS)).collect();
    let mut oracles: Vec<Oracle> = kinds.iter().map(|_| Oracle::new(SECTORS, rules.cuts)).collect();
    let schedule = match how % 4 {
        0 => Schedule::Eager,
        1 => Schedule::Lazy,
        _ => Schedule::RANDOM,
    };
    for boot in 0.. {
        let config = Config { ram: 4 << 20, seed: u64::from(seed) ^ boot, schedule, ..Config::default() };
        let machine = Machine::new(config);
        if rules.lies {
            // Who waits for an enemy waits in vain, with a bound in time: fewer spins are as good.
            machine.spins_take(20_000);
        }
        let plugs = (0..).zip(kinds).zip(&disks).map(|((n, kind), disk)| Plug::new(&machine, *kind, disk, n)).collect();
        let part = machine.run(|task| part(task, &machine, rules, plugs, &mut oracles, &mut next, &mut bytes));
        assert_eq!(machine.live_dma_blocks(), 0, "memory is left behind");
        match part {
            Part::Over => break,
            Part::Cut => {
                trace::note(0, "power cut", boot, [0; 2]);
                let mut random = Random::new(u64::from(seed) ^ boot << 32);
                for (disk, oracle) in disks.iter().zip(&mut oracles) {
                    disk.power_cut(&mut random);
                    oracle.cut(|sector| disk.read_sector(sector));
                }
            }
        }
    }
}

fn part(
    task: &Task,
    machine: &Rc<Machine>,
    rules: Rules,
    plugs: Vec<Plug>,
    oracles: &mut [Oracle],
    next: &mut u64,
    bytes: &mut Bytes<'_>,
) -> Part {
    timers::start_service(task);
    let sink = Arc::new(Sink::default());
    let units = plugs
        .into_iter()
        .map(|plug| {
            let up = plug.bring_up(task);
            let queue = BlockQueue::new(up.device, TIMES);
            queue.watch(Arc::clone(&sink) as Arc<_>);
            Unit { queue, plug, _keeps: up.keeps }
        })
        .collect();
    let (excused, lied) = (false, false);
    let mut run =
        Run { task, machine, rules, units, oracles, sink, asked: BTreeMap::new(), next, excused, lied, paused: 0 };
    let part = run.script(bytes);
    run.end(&part);
    trace::passed(Instant::now().as_nanos());
    part
}

impl Run<'_> {
    fn script(&mut self, bytes: &mut Bytes<'_>) -> Part {
        while !bytes.is_empty() {
            let (what, which, a, b) = (bytes.u8(), bytes.u8(), bytes.u16(), bytes.u16());
            let disk = usize::from(which & 15) % self.units.len();
            match what {
                0..90 => self.submit(Op::Read, disk, a, b, false),
                90..170 => self.submit(Op::Write, disk, a, b, which & 0xe0 == 0),
                170..182 => self.submit(Op::Flush, disk, 0, 0, false),
                182..186 => self.submit(Op::WriteZeroes, disk, a, b, false),
                186..206 => self.task.run_pending(),
                206..222 => self.wait(1 + usize::from(b) % 16),
                222..230 => self.machine.advance(u64::from(a) << (b % 8)),
                230..234 => self.cancel(usize::from(a)),
                234..242 if self.rules.faults => {
                    let percent = [0, 0, 2, 5, 20, 60, 100][usize::from(which >> 4) % 7];
                    let lies = self.rules.lies && b & 1 != 0;
                    trace::note(Instant::now().as_nanos(), "faults", disk as u64, [percent, lies.into()]);
                    trace::fault();
                    self.excused |= percent > 0;
                    self.lied |= lies && percent > 0;
                    self.units[disk].plug.set_faults(u64::from(a), percent as u8, lies);
                }
                242..246 if self.rules.memory => {
                    self.excused = true;
                    trace::fault();
                    self.machine.fail_dma_after(u64::from(a % 8));
                }
                246..248 if self.rules.pauses => {
                    let nanos = 1_000_000_000 * (1 + u64::from(b % 4000));
                    trace::note(Instant::now().as_nanos(), "paused", 0, [nanos, 0]);
                    (self.excused, self.paused) = (true, self.paused + nanos);
                    self.machine.advance(nanos);
                }
                248 if self.rules.pulls && which > 0x80 => {
                    trace::note(Instant::now().as_nanos(), "pulled out", disk as u64, [0; 2]);
                    trace::fault();
                    self.excused = true;
                    self.units[disk].plug.pull(self.machine);
                }
                249 if self.rules.cuts => return Part::Cut,
                _ => self.wait(usize::MAX),
            }
            self.take();
        }
        Part::Over
    }

    fn submit(&mut self, op: Op, disk: usize, a: u16, b: u16, fua: bool) {
        if self.asked.len() >= MOST {
            return self.wait(1);
        }
        let info = self.units[disk].queue.info();
        let sure = !self.rules.faults || self.units[disk].plug.zeroes_are_sure();
        if op == Op::WriteZeroes && !(sure && info.features.contains(Features::WRITE_ZEROES)) {
            return;
        }
        // A crowd at the beginning, and now and then a long one that has to be cut.
        let len = if b & 0x1f == 0 { 1 + u64::from(b >> 5) % 60 } else { 1 + u64::from(b >> 8) % 8 };
        let span = if a & 1 == 0 { 32 } else { SECTORS };
        let start = (u64::from(a >> 1) % span).min(SECTORS - len);
        let range = if op == Op::Flush { 0..0 } else { start..start + len };
        let cookie = *self.next;
        *self.next += 1;
        let data = match op {
            Op::Read | Op::Write => {
                let Ok(mut buf) = DmaBuf::new(len as usize * 512, DmaConstraints::ANY) else { return };
                if op == Op::Write {
                    fill(&mut buf, start, cookie)
                } else {
                    buf.fill(0xee)
                }
                buf.into()
            }
            _ => Data::None,
        };
        let blocks = (range.end - range.start) as u32;
        let mut request = Request::new(op, range.start, blocks, data, self.sink.completion(cookie));
        request.fua = fua;
        let begun = self.sink.tick();
        let (now, number) = (Instant::now().as_nanos(), if op == Op::WriteZeroes { 0 } else { cookie });
        trace::note(now, name(op), cookie, [range.start, u64::from(blocks) << 8 | disk as u64]);
        trace::count(1);
        let oldest = self.asked.values().map(|asked| asked.begun).min().unwrap_or(begun);
        if matches!(op, Op::Write | Op::WriteZeroes) {
            self.oracles[disk].begin(range.clone(), number, begun, oldest);
        }
        let asked = Asked { disk, op, range, fua, begun, since: now, tag: None };
        self.asked.insert(cookie, asked);
        let taken = self.units[disk].queue.submit(request);
        match taken {
            Ok(tag) => {
                if let Some(asked) = self.asked.get_mut(&cookie) {
                    asked.tag = Some(tag);
                }
                if b & 0x60 != 0 {
                    self.units[disk].queue.commit();
                }
            }
            Err(rejected) => {
                let known = self.excused || rejected.why == Refusal::Full;
                assert!(known, "a request is refused without a cause: {:?}", rejected.why);
                if let Some(asked) = self.asked.remove(&cookie) {
                    self.over(&asked, cookie, self.sink.tick(), false);
                }
            }
        }
    }

    fn over(&mut self, asked: &Asked, cookie: u64, at: u64, good: bool) {
        if matches!(asked.op, Op::Write | Op::WriteZeroes) {
            let number = if asked.op == Op::Write { cookie } else { 0 };
            self.oracles[asked.disk].end(asked.range.clone(), number, at, good, asked.fua);
        }
    }

    fn cancel(&mut self, which: usize) {
        let count = self.asked.len().max(1);
        let Some((_, asked)) = self.asked.iter().nth(which % count) else { return };
        let Some(tag) = asked.tag else { return };
        trace::fault();
        self.excused = true;
        _ = self.units[asked.disk].queue.cancel(tag);
    }

    /// Waits for so many more to end, or for all.
    fn wait(&mut self, count: usize) {
        self.units.iter().for_each(|unit| unit.queue.commit());
        let wanted = count.min(self.asked.len());
        let limit = Instant::now().as_nanos() + BOUND;
        // The ladder's alarms let time pass; without any the machine says that the guest hangs.
        self.task.wait_until(|| self.sink.count() >= wanted || Instant::now().as_nanos() > limit);
        assert!(self.sink.count() >= wanted, "{} requests do not end in time", wanted - self.sink.count());
        self.take();
    }

    fn take(&mut self) {
        let now = Instant::now().as_nanos();
        for (cookie, Ended { back, result, at }) in self.sink.take() {
            let asked = self.asked.remove(&cookie).expect("an end of what nobody asked for, or its second");
            assert!(result.is_ok() || self.excused, "{:?} fails without a cause: {result:?}", asked.op);
            let took = now.saturating_sub(asked.since);
            assert!(took <= BOUND + self.paused, "{:?} took {took} ns", asked.op);
            let Back::Request(request) = back else { continue };
            self.over(&asked, cookie, at, result.is_ok());
            if self.lied || result.is_err() {
                continue;
            }
            match asked.op {
                Op::Read => {
                    let mut sector = asked.range.start;
                    for piece in request.data.pieces() {
                        self.oracles[asked.disk].read(sector, piece.bytes(), asked.begun);
                        sector += piece.len() as u64 / 512;
                    }
                    assert_eq!(sector, asked.range.end, "a read comes back with other buffers");
                }
                Op::Flush => self.oracles[asked.disk].flushed(asked.begun),
                _ => {}
            }
        }
        if let Some(late) = self.asked.values().map(|asked| now.saturating_sub(asked.since)).max() {
            assert!(late <= BOUND + self.paused, "a request has not ended for {late} ns");
        }
    }

    /// Ends a part: all is waited for, or the devices are gone at once.
    fn end(mut self, part: &Part) {
        if matches!(part, Part::Cut) {
            self.excused = true;
            self.units.iter().for_each(|unit| unit.plug.pull(self.machine));
        }
        self.wait(usize::MAX);
        let breaches: Vec<String> =
            self.units.iter().map(|unit| unit.plug.breaches()).filter(|b| !b.is_empty()).collect();
        let units = std::mem::take(&mut self.units);
        drop(units);
        settle(self.task, 400);
        assert!(self.asked.is_empty() && self.sink.count() == 0, "requests end after the end");
        let held = breaches.is_empty() || self.rules.pulls || self.lied;
        assert!(held, "a driver broke its device's rules: {breaches:?}");
    }
}

const fn name(op: Op) -> &'static str {
    match op {
        Op::Read => "read",
        Op::Write => "write",
        Op::Flush => "flush",
        Op::Discard => "discard",
        Op::WriteZeroes => "write zeroes",
    }
}
