//! The script of a page cache over a disk, as a file system loads it: byte ranges, syncs, a budget that shrinks, power cuts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use undercroft_block::Data;
use undercroft_block::queue::BlockQueue;
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::{Instant, Task};
use undercroft_hosts::{Config as MachineConfig, Disk, Machine, Random, Schedule};
use undercroft_pagecache::{Config, Pinned, Volume};
use undercroft_timer::timers;

use super::Rules;
use super::bus::{Kind, Plug, settle};
use super::oracle::{Oracle, fill};
use super::run::TIMES;
use super::sink::{Back, Ended, Sink};
use crate::{Bytes, trace};

/// Sectors of the disk: more pages than the cache has.
const SECTORS: u64 = 512;
const MOST: usize = 24;
/// How long an operation may take: write-backs are tried again after pauses.
const BOUND: u64 = 60_000_000_000;

const SMALL: Config = Config {
    pages: 32,
    operations: 32,
    pins: 4,
    handles: 2,
    transfer: 8 << 10,
    read: 16 << 10,
    reads: 3,
    writes: 2,
    tick: Duration::from_millis(10),
    age: 3,
    dirty_percent: 60,
    background_percent: 20,
    retry: (Duration::from_millis(5), Duration::from_millis(40)),
    ahead: 8,
};

enum Asked {
    Read(Range<u64>, u64),
    Write(Range<u64>),
    Sync(u64),
    Pin,
}

struct Run<'a> {
    task: &'a Task,
    machine: &'a Rc<Machine>,
    plug: &'a Plug,
    volume: &'a Volume,
    oracle: &'a mut Oracle,
    sink: Arc<Sink>,
    asked: BTreeMap<u64, Asked>,
    pinned: Vec<Pinned>,
    next: &'a mut u64,
    rules: Rules,
    excused: bool,
}

/// Runs a script on a page cache over a disk on this bus. With [`Rules::lies`] only ends are looked at.
///
/// # Panics
/// If anything does not hold.
pub fn cache(kind: Kind, rules: Rules, bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let (how, seed, mut next) = (bytes.u16(), bytes.u16(), 1);
    let disk = Disk::new(SECTORS);
    let mut oracle = Oracle::new(SECTORS, true);
    let schedule = [Schedule::Eager, Schedule::RANDOM][usize::from(how % 2)];
    let config = Config {
        pages: [16, 32, 48][usize::from(how >> 2) % 3],
        ahead: [0, 8][usize::from(how >> 4 & 1)],
        dirty_percent: [40, 100][usize::from(how >> 5 & 1)],
        ..SMALL
    };
    for boot in 0.. {
        let ram = MachineConfig { ram: 4 << 20, seed: u64::from(seed) ^ boot, schedule, ..MachineConfig::default() };
        let machine = Machine::new(ram);
        let plug = Plug::new(&machine, kind, &disk, 0);
        let cut = machine.run(|task| {
            timers::start_service(task);
            let up = plug.bring_up(task);
            let queue: Arc<BlockQueue> = Arc::new(BlockQueue::new(up.device, TIMES));
            let volume = Volume::open(task, queue, config).expect("opens");
            let sink = Arc::new(Sink::default());
            let mut run = Run {
                task,
                machine: &machine,
                plug: &plug,
                volume: &volume,
                oracle: &mut oracle,
                sink,
                asked: BTreeMap::new(),
                pinned: Vec::new(),
                next: &mut next,
                rules,
                excused: false,
            };
            let cut = run.script(&mut bytes);
            run.end(cut);
            drop(volume);
            for _ in 0..200 {
                machine.advance(20_000_000);
                settle(task, 20);
            }
            drop(up.keeps);
            settle(task, 400);
            trace::passed(Instant::now().as_nanos());
            cut
        });
        assert_eq!(machine.live_dma_blocks(), 0, "memory is left behind");
        if !cut {
            break;
        }
        trace::note(0, "power cut", boot, [0; 2]);
        disk.power_cut(&mut Random::new(u64::from(seed) ^ boot << 32));
        oracle.cut(|sector| disk.read_sector(sector));
    }
}

impl Run<'_> {
    fn script(&mut self, bytes: &mut Bytes<'_>) -> bool {
        while !bytes.is_empty() {
            let (what, which, a, b) = (bytes.u8(), bytes.u8(), bytes.u16(), bytes.u16());
            match what {
                0..90 => self.transfer(false, a, b),
                90..170 => self.transfer(true, a, b),
                170..184 => self.sync(),
                184..188 => _ = self.volume.resize_cache(self.task, [4, 16, 32, 48][usize::from(b) % 4]),
                188..194 => {
                    let cookie = self.cookie("pin", [a.into(), 0]);
                    let at = u64::from(a) % SECTORS * 512;
                    if self.pinned.len() < 3 && self.volume.pin(self.task, at, self.sink.done(cookie)).is_ok() {
                        self.asked.insert(cookie, Asked::Pin);
                    }
                }
                194..200 => drop(self.pinned.pop()),
                200..214 => self.task.run_pending(),
                214..226 => self.wait(1 + usize::from(b) % 8),
                226..234 => self.machine.advance(u64::from(a) << (b % 10)),
                234..242 if self.rules.faults => {
                    let percent = [0, 0, 2, 5, 20, 60][usize::from(which >> 4) % 6];
                    trace::note(Instant::now().as_nanos(), "faults", 0, [percent, 0]);
                    trace::fault();
                    self.excused |= percent > 0;
                    self.plug.set_faults(u64::from(a), percent as u8, false);
                }
                242..246 if self.rules.memory => {
                    trace::fault();
                    self.excused = true;
                    self.machine.fail_dma_after(u64::from(a % 8));
                }
                246 if self.rules.cuts && which > 0x40 => return true,
                _ => self.wait(usize::MAX),
            }
            self.take();
        }
        false
    }

    fn cookie(&mut self, what: &'static str, more: [u64; 2]) -> u64 {
        let cookie = *self.next;
        *self.next += 1;
        trace::note(Instant::now().as_nanos(), what, cookie, more);
        trace::count(1);
        cookie
    }

    fn transfer(&mut self, write: bool, a: u16, b: u16) {
        if self.asked.len() >= MOST {
            return self.wait(1);
        }
        let len = if b & 0x1f == 0 { 1 + u64::from(b >> 5) % 40 } else { 1 + u64::from(b >> 8) % 10 };
        let start = (u64::from(a >> 1) % if a & 1 == 0 { 64 } else { SECTORS }).min(SECTORS - len);
        let (range, at) = (start..start + len, start * 512);
        let Ok(mut buf) = DmaBuf::new(len as usize * 512, DmaConstraints::ANY) else { return };
        let cookie = self.cookie(if write { "write" } else { "read" }, [start, len]);
        let (begun, done) = (self.sink.tick(), self.sink.done(cookie));
        if !write {
            buf.fill(0xee);
            if self.volume.read(self.task, at, Data::from(buf), done).is_ok() {
                self.asked.insert(cookie, Asked::Read(range, begun));
            }
            return;
        }
        fill(&mut buf, start, cookie);
        // The oldest read under way may see what was there when it began.
        let under_way =
            self.asked.values().filter_map(|asked| if let Asked::Read(_, at) = asked { Some(*at) } else { None });
        let oldest = under_way.min().unwrap_or(begun);
        self.oracle.begin(range.clone(), cookie, begun, oldest);
        self.asked.insert(cookie, Asked::Write(range.clone()));
        if self.volume.write(self.task, at, Data::from(buf), done).is_err() {
            self.asked.remove(&cookie);
            self.oracle.end(range, cookie, self.sink.tick(), false, false);
        }
    }

    fn sync(&mut self) {
        let cookie = self.cookie("sync", [0; 2]);
        let begun = self.sink.tick();
        if self.volume.sync_all(self.task, self.sink.done(cookie)).is_ok() {
            self.asked.insert(cookie, Asked::Sync(begun));
        }
    }

    fn wait(&mut self, count: usize) {
        let wanted = count.min(self.asked.len());
        let limit = Instant::now().as_nanos() + BOUND;
        self.task.wait_until(|| self.sink.count() >= wanted || Instant::now().as_nanos() > limit);
        assert!(self.sink.count() >= wanted, "{} operations do not end in time", wanted - self.sink.count());
        self.take();
    }

    fn take(&mut self) {
        for (cookie, Ended { back, result, at }) in self.sink.take() {
            let asked = self.asked.remove(&cookie).expect("an end of what nobody asked for, or its second");
            assert!(result.is_ok() || self.excused, "an operation fails without a cause: {result:?}");
            let Back::Cache(outcome) = back else { continue };
            match asked {
                Asked::Read(range, begun) if result.is_ok() => {
                    let mut sector = range.start;
                    for piece in outcome.data.pieces() {
                        self.oracle.read(sector, piece.bytes(), begun);
                        sector += piece.len() as u64 / 512;
                    }
                    assert_eq!(sector, range.end, "a read comes back with other buffers");
                }
                Asked::Write(range) => self.oracle.end(range, cookie, at, result.is_ok(), false),
                Asked::Sync(begun) if result.is_ok() => self.oracle.flushed(begun),
                Asked::Pin => self.pinned.extend(outcome.pinned),
                _ => {}
            }
        }
    }

    fn end(&mut self, cut: bool) {
        self.pinned.clear();
        if cut {
            self.excused = true;
            self.plug.pull(self.machine);
        } else {
            self.plug.set_faults(0, 0, false);
        }
        // A device that is gone may leave writers waiting for room: the volume is dropped with them.
        self.wait(usize::MAX);
        self.pinned.clear();
    }
}
