//! Random operations, answers in any order, faults, evictions, memory that runs out, power cuts: what is read linearises with what is written,
//! what was made durable survives, each operation ends once, and nothing is left behind.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use undercroft_block::{Data, Error, Op};
use undercroft_hal::heap::fail_nth;
use undercroft_hosts::Random;

use super::device::*;
use super::history::*;
use super::rig::*;
use crate::broken::{self, Hazard};
use crate::*;

/// 24 pages, and three blocks of another.
const SIZE: usize = 24 * PAGE + 3 * 512;
const CELLS: usize = SIZE / CELL;

enum Asked {
    Read(Range<usize>, u64),
    Write(Range<usize>, u32),
    Sync(Range<usize>, u64),
    Pin,
}

pub struct Run<'a, 'b> {
    pub rig: &'a Rig<'b>,
    pub random: Random,
    pub history: History,
    asked: BTreeMap<u64, Asked>,
    pub pinned: Vec<Pinned>,
    pub mapped: Vec<Mapped>,
    pub file: File,
    /// Cells of the volume.
    pub cells: usize,
    /// A part was set aside: who came there was told so.
    pub asides: bool,
    next: u64,
    /// Whether faults are made at all.
    pub faults: bool,
}

/// Data of a number's cells.
pub fn numbered(cells: &Range<usize>, number: u32) -> Data {
    let mut data = filled(cells.len() * CELL, 0);
    for piece in data.pieces_mut() {
        piece.bytes_mut().chunks_mut(4).for_each(|part| part.copy_from_slice(&number.to_le_bytes()));
    }
    data
}

impl Run<'_, '_> {
    fn cells(&mut self) -> Range<usize> {
        let start = self.random.below(CELLS);
        let most = [1, 8, 64, 200][self.random.below(4)].min(CELLS - start);
        let len = 1 + self.random.below(most);
        // Whole pages now and then.
        let page = PAGE / CELL;
        if self.random.chance(30) && start / page * page + page <= CELLS {
            return start / page * page..start / page * page + page;
        }
        start..start + len
    }

    fn step(&mut self) -> Result<(), String> {
        let cookie = self.next;
        self.next += 1;
        let (cx, volume, done) = (self.rig.cx, &self.rig.volume, self.rig.done(cookie));
        let begun = self.rig.sink.tick();
        match self.random.below(100) {
            0..30 => {
                let cells = self.cells();
                let data = filled(cells.len() * CELL, 0xee);
                let taken = volume.read(cx, (cells.start * CELL) as u64, data, done).is_ok();
                taken.then(|| self.asked.insert(cookie, Asked::Read(cells, begun)));
            }
            30..60 => {
                let (cells, number) = (self.cells(), cookie as u32);
                let data = numbered(&cells, number);
                if volume.stats(cx).operations < SMALL.operations {
                    // From here on it may be seen.
                    self.history.begin_write(cells.clone(), number, begun);
                    let short = self.random.chance(10) && self.faults;
                    let nth = if short { self.random.below(2) as u64 } else { NEVER };
                    let taken = fail_nth(nth, || volume.write(cx, (cells.start * CELL) as u64, data, done)).value;
                    taken.map_err(|refused| format!("{refused:?}"))?;
                    self.asked.insert(cookie, Asked::Write(cells, number));
                }
            }
            60..70 => {
                let cells = if self.random.chance(50) { 0..CELLS } else { self.cells() };
                let range = (cells.start * CELL) as u64..(cells.end * CELL) as u64;
                if volume.sync(cx, range, done).is_ok() {
                    self.asked.insert(cookie, Asked::Sync(cells, begun));
                }
            }
            70..73 => {
                let at = self.random.below(SIZE) as u64;
                if self.pinned.len() < 4 && volume.pin(cx, at, done).is_ok() {
                    self.asked.insert(cookie, Asked::Pin);
                }
            }
            73..76 => {
                if let Some(pinned) = self.pinned.pop() {
                    self.use_pin(&pinned, cookie as u32)?;
                    if self.random.chance(50) { drop(pinned) } else { pinned.unpin(cx) }
                }
            }
            76..79 => _ = volume.resize_cache(cx, [4, 16, 32, 48][self.random.below(4)]),
            79..84 if self.faults => {
                let op = [Op::Read, Op::Write, Op::Write, Op::Flush][self.random.below(4)];
                let block = self.random.below(SIZE / 512) as u64;
                self.rig.device.fail(op, block, Error::Medium, 1 + self.random.below(2) as u32);
            }
            84..87 => self.rig.device.hold(),
            87..93 => {
                let count = self.rig.device.lock().flights.len();
                if count > 0 {
                    self.rig.answer(self.random.below(count));
                }
            }
            93..96 => self.rig.pass(Duration::from_millis(self.random.below(30) as u64)),
            96..97 => self.power_cut()?,
            97..99 => self.step_of_others(cookie as u32)?,
            _ => {
                self.rig.device.release();
                self.rig.cx.run_pending();
            }
        }
        self.take_ended()
    }

    /// Reads through a pin, and sometimes writes.
    pub fn use_pin(&mut self, pinned: &Pinned, value: u32) -> Result<(), String> {
        let cx = self.rig.cx;
        let first = pinned.index(cx) as usize * (PAGE / CELL);
        let cell = first + self.random.below((CELLS - first).min(PAGE / CELL));
        let (offset, mut bytes) = ((cell - first) * CELL, [0; CELL]);
        let begun = self.rig.sink.tick();
        if self.random.chance(50) {
            self.history.begin_write(cell..cell + 1, value, begun);
            let bytes: Vec<u8> = value.to_le_bytes().repeat(CELL / 4);
            pinned.write(cx, offset, &bytes).map_err(|error| format!("{error:?}"))?;
            self.history.end_write(cell..cell + 1, value, self.rig.sink.tick());
        } else {
            pinned.read(cx, offset, &mut bytes);
            self.history.read(cell, number(&bytes)?, begun, self.rig.sink.tick())?;
        }
        Ok(())
    }

    fn take_ended(&mut self) -> Result<(), String> {
        let ended = std::mem::take(&mut *self.rig.sink.ended.lock().unwrap());
        for (cookie, ended) in ended {
            let result = ended.outcome.result;
            match self.asked.remove(&cookie).ok_or("an operation ended that nobody asked for")? {
                Asked::Read(cells, begun) if result.is_ok() => {
                    let bytes = bytes_of(&ended.outcome.data);
                    for (cell, bytes) in cells.zip(bytes.chunks(CELL)) {
                        self.history.read(cell, number(bytes)?, begun, ended.at)?;
                    }
                }
                Asked::Write(cells, number) if result.is_ok() => self.history.end_write(cells, number, ended.at),
                Asked::Sync(cells, begun) if result.is_ok() => {
                    self.history.synced(cells, begun);
                    if self.random.chance(20) {
                        self.power_cut()?;
                    }
                }
                Asked::Pin => self.pinned.extend(ended.outcome.pinned),
                _ if self.faults || result == Err(Error::NoMemory) => {}
                _ if self.asides && result == Err(Error::Busy) => {}
                _ => return Err(format!("an operation failed without a fault: {result:?}")),
            }
        }
        Ok(())
    }

    pub fn power_cut(&mut self) -> Result<(), String> {
        let left = self.rig.device.cut(&mut self.random);
        for (cell, bytes) in left.chunks(CELL).enumerate() {
            self.history.survives(cell, number(bytes)?)?;
        }
        Ok(())
    }
}

fn run(seed: u64, steps: usize) -> Result<(), String> {
    let mut random = Random::new(seed);
    let faults = !seed.is_multiple_of(3);
    let config = Config {
        pages: [16, 32, 48][random.below(3)],
        ahead: [0, 8][random.below(2)],
        dirty_percent: [20, 50, 100][random.below(3)],
        background_percent: [5, 100][random.below(2)],
        transfer: [4096, 16384][random.below(2)],
        ..SMALL
    };
    let block_size = if seed % 5 == 4 { 4096 } else { 512 };
    let size = if block_size == 4096 { SIZE / PAGE * PAGE + PAGE } else { SIZE };
    let ended = try_on(info(size as u64, block_size), config, |rig| {
        {
            let mut state = rig.device.lock();
            state.store.fill(0);
            state.durable.fill(0);
            state.order = match seed % 4 {
                0 => Order::First,
                1 => Order::Last,
                _ => Order::Any(Random::new(seed)),
            };
        }
        let history = History::new(size / CELL);
        let mut run = Run {
            rig,
            random,
            history,
            asked: BTreeMap::new(),
            pinned: Vec::new(),
            mapped: Vec::new(),
            file: super::others::file(rig).unwrap(),
            cells: size / CELL,
            asides: false,
            next: 1,
            faults,
        };
        for step in 0..steps {
            run.step().unwrap_or_else(|error| panic!("seed {seed}, step {step}: {error}"));
            if step % 50 == 0 {
                rig.volume.verify(rig.cx);
                run.history.check().unwrap_or_else(|error| panic!("seed {seed}, step {step}: {error}"));
            }
        }
        rig.device.lock().faults.clear();
        rig.device.release();
        run.pinned.clear();
        run.mapped.clear();
        for _ in 0..10 {
            rig.pass(Duration::from_millis(50));
        }
        run.take_ended().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        run.pinned.clear();
        assert!(run.asked.is_empty(), "seed {seed}: operations that never end: {:?}", run.asked.keys());
        // What is left is what was written last, on the device too.
        let _ = rig.volume.sync_all_blocking(rig.cx);
        let begun = rig.sink.tick();
        assert_eq!(rig.volume.sync_all_blocking(rig.cx), Ok(()), "seed {seed}");
        run.history.synced(0..size / CELL, begun);
        for _ in 0..3 {
            run.power_cut().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        let bytes = rig.now(0, size).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for (cell, bytes) in bytes.chunks(CELL).enumerate() {
            let read = number(bytes).and_then(|number| run.history.read(cell, number, begun, begun + 1));
            read.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        run.history.check().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(rig.device.lock().store == bytes, "seed {seed}: the device has something else");
    });
    ended.map_err(|error| format!("seed {seed}: {error}"))
}

/// So many seeds; more with `UNDERCROFT_SEEDS`.
fn seeds() -> Range<u64> {
    0..std::env::var("UNDERCROFT_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(100)
}

#[test]
fn what_is_read_and_left_can_have_been() {
    for seed in seeds() {
        run(seed, 400).unwrap();
    }
}

/// The check sees what it is there for.
#[test]
fn what_is_read_and_left_can_have_been_control() {
    for (hazard, message) in [
        (Hazard::NewestOnly, "was made durable"),
        (Hazard::AnyFlush, "was made durable"),
        (Hazard::FailedWriteClean, "was made durable"),
        // What was in that memory before: an older value, or another page.
        (Hazard::FailedReadStays, "cell "),
        (Hazard::NotReadFirst, "cell "),
        // The device has the page's memory: there is nothing to be read.
        (Hazard::OverReading, "out of range for slice of length 0"),
        (Hazard::ForgottenReader, "operations that never end"),
        (Hazard::ForgottenWithoutMemory, "operations that never end"),
    ] {
        let caught = broken::with(hazard, || (0..200).find_map(|seed| run(seed, 400).err()));
        let error = caught.unwrap_or_else(|| panic!("{hazard:?} was not caught"));
        // A write over a page that is being read may be seen by the table of legal changes first.
        let at_once = hazard == Hazard::OverReading && error.contains("cannot become Dirty: it is Reading");
        assert!(error.contains(message) || at_once, "{hazard:?}: {error}");
    }
}
