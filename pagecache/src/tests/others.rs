//! What else comes to a volume's pages in the random runs of [`property`](super::property): files, parts that are set aside, mappings. And each of them
//! with each of its allocations failing.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use undercroft_block::{BlockDevice, Complete, Completion, Data, Error, Op, Request};
use undercroft_hal::BottomHalf;
use undercroft_hal::heap::fail_nth;
use undercroft_hal::hosted::trap;

use super::history::*;
use super::property::{Run, numbered};
use super::rig::*;
use crate::*;

const P: u64 = PAGE as u64;
/// Cells of a page.
const CELLS: usize = PAGE / CELL;
/// Pages of the volume that the file has, in this order.
const FILE: [usize; 6] = [8, 9, 10, 3, 15, 14];

#[derive(Default)]
struct Back(Mutex<Option<(Request, Result<(), Error>)>>);

impl Complete for Back {
    fn complete(&self, _: &BottomHalf, _: u64, request: Request, result: Result<(), Error>) {
        trap::outside(|| *self.0.lock().unwrap() = Some((request, result)));
    }
}

/// A request to what is set aside.
fn direct(rig: &Rig<'_>, aside: &Aside, op: Op, lba: u64, data: Data) -> Result<Data, Error> {
    let back = Arc::<Back>::default();
    let blocks = (data.len() / aside.info().block_size as usize) as u32;
    aside.submit(Request::new(op, lba, blocks, data, Completion::new(back.clone(), 0))).unwrap();
    aside.commit();
    rig.settle();
    let (request, result) = back.0.lock().unwrap().take().expect("it ended");
    result.map(|()| request.into_data())
}

pub fn file(rig: &Rig<'_>) -> Result<File, Error> {
    let extents = FILE.map(|page| Extent { len: P, place: Place::Written(page as u64 * P) });
    File::new(rig.cx, rig.volume.another(rig.cx).ok_or(Error::Busy)?, &extents, FILE.len() as u64 * P)
}

/// The volume's cells behind some of a file.
fn behind(cells: Range<usize>) -> impl Iterator<Item = usize> {
    cells.map(|cell| FILE[cell / CELLS] * CELLS + cell % CELLS)
}

impl Run<'_, '_> {
    /// One of them. What waits cannot do so for a device that holds its answers.
    pub fn step_of_others(&mut self, value: u32) -> Result<(), String> {
        self.rig.device.release();
        match self.random.below(6) {
            0 => self.read_file(),
            1 | 2 => self.write_file(value),
            3 => self.sync_file(),
            4 => self.set_aside(value),
            _ => self.mapping(value),
        }
    }

    fn fails(&self, error: Error) -> Result<(), String> {
        // A part may be set aside still: nobody has looked since it went. And all pages of a small cache may be pinned.
        let may = self.faults || matches!(error, Error::Busy | Error::NoMemory);
        if may { Ok(()) } else { Err(format!("it failed without a fault: {error:?}")) }
    }

    fn file_cells(&mut self) -> Range<usize> {
        let start = self.random.below(FILE.len() * CELLS);
        start..start + 1 + self.random.below((FILE.len() * CELLS - start).min(150))
    }

    fn read_file(&mut self) -> Result<(), String> {
        let (cells, begun) = (self.file_cells(), self.rig.sink.tick());
        let mut bytes = vec![0; cells.len() * CELL];
        match self.file.read(self.rig.cx, (cells.start * CELL) as u64, &mut bytes) {
            Ok(read) if read == bytes.len() => {}
            Ok(read) => return Err(format!("the file ended after {read} bytes")),
            Err(error) => return self.fails(error),
        }
        let ended = self.rig.sink.tick();
        for (cell, bytes) in behind(cells).zip(bytes.chunks(CELL)) {
            self.history.read(cell, number(bytes)?, begun, ended)?;
        }
        Ok(())
    }

    fn write_file(&mut self, value: u32) -> Result<(), String> {
        let (cells, begun) = (self.file_cells(), self.rig.sink.tick());
        let bytes = value.to_le_bytes().repeat(cells.len() * CELL / 4);
        behind(cells.clone()).for_each(|cell| self.history.begin_write(cell..cell + 1, value, begun));
        if let Err(error) = self.file.write(self.rig.cx, (cells.start * CELL) as u64, &bytes) {
            return self.fails(error);
        }
        let ended = self.rig.sink.tick();
        behind(cells).for_each(|cell| self.history.end_write(cell..cell + 1, value, ended));
        Ok(())
    }

    fn sync_file(&mut self) -> Result<(), String> {
        let begun = self.rig.sink.tick();
        match self.file.sync(self.rig.cx) {
            Ok((extents, size)) => {
                assert_eq!((extents.len(), size), (FILE.len(), FILE.len() as u64 * P));
                self.history.synced(0..self.cells, begun);
                self.power_cut()
            }
            Err(error) => self.fails(error),
        }
    }

    /// Sets a few pages aside, uses them past the cache, and gives them back.
    fn set_aside(&mut self, value: u32) -> Result<(), String> {
        let first = self.random.below(20);
        let pages = first..first + 1 + self.random.below(3);
        let aside = match self.rig.volume.set_aside(self.rig.cx, pages.start as u64 * P..pages.end as u64 * P) {
            Ok(aside) => aside,
            // Pinned, say.
            Err(error) => return self.fails(error),
        };
        // Who was on the way there is told so.
        self.asides = true;
        let cells = pages.start * CELLS..pages.end * CELLS;
        let begun = self.rig.sink.tick();
        match direct(self.rig, &aside, Op::Read, 0, filled(cells.len() * CELL, 0xee)) {
            Ok(data) => {
                let ended = self.rig.sink.tick();
                for (cell, bytes) in cells.clone().zip(bytes_of(&data).chunks(CELL)) {
                    self.history.read(cell, number(bytes)?, begun, ended)?;
                }
            }
            Err(error) => self.fails(error)?,
        }
        let (page, begun) = (pages.start * CELLS..(pages.start + 1) * CELLS, self.rig.sink.tick());
        self.history.begin_write(page.clone(), value, begun);
        match direct(self.rig, &aside, Op::Write, 0, numbered(&page, value)) {
            Ok(_) => self.history.end_write(page.clone(), value, self.rig.sink.tick()),
            Err(error) => self.fails(error)?,
        }
        let mut bytes = [0; 8];
        let through = self.rig.volume.read_blocking(self.rig.cx, (page.start * CELL) as u64, &mut bytes);
        assert_eq!(through, Err(Error::Busy), "what is set aside is read through the cache");
        Ok(())
    }

    /// Maps a pinned page, changes a mapped one, or takes a mapping away.
    fn mapping(&mut self, value: u32) -> Result<(), String> {
        let cx = self.rig.cx;
        if let Some(pinned) = self.pinned.pop() {
            match pinned.map(cx) {
                Ok(mapped) => self.mapped.push(mapped),
                Err((pinned, error)) => {
                    self.pinned.push(pinned);
                    self.fails(error)?;
                }
            }
        }
        if let Some(mapped) = self.mapped.pop() {
            self.use_pin(mapped.page(), value)?;
            if self.mapped.len() < 2 && self.random.chance(60) {
                self.mapped.push(mapped);
            } else {
                mapped.unmap(cx, || ());
            }
        }
        Ok(())
    }
}

type Way = fn(&Rig<'_>) -> Result<(), Error>;

const WAYS: [(&str, Way); 6] = [
    ("a file is made, and read", |rig| {
        let mut bytes = [0; 3 * PAGE];
        file(rig)?.read(rig.cx, 100, &mut bytes).map(drop)
    }),
    ("a file is written", |rig| file(rig)?.write(rig.cx, P + 100, &[1; 2 * PAGE])),
    ("a file is written for the first time", |rig| {
        let extents = [Extent { len: 4 * P, place: Place::Unwritten(20 * P) }];
        let volume = rig.volume.another(rig.cx).ok_or(Error::Busy)?;
        File::new(rig.cx, volume, &extents, 0)?.write(rig.cx, P + 100, &[1; PAGE])
    }),
    ("a file is synced", |rig| file(rig)?.sync(rig.cx).map(drop)),
    ("a part is set aside", |rig| rig.volume.set_aside(rig.cx, 30 * P..34 * P).map(drop)),
    ("a page is mapped", |rig| {
        let pinned = rig.volume.pin_blocking(rig.cx, 40 * P)?;
        let mapped = pinned.map(rig.cx).map_err(|(_, error)| error)?;
        mapped.page().write(rig.cx, 0, &[3])
    }),
];

/// T-FAILN, of files, parts that are set aside and mappings: an error or none, nothing is left (the rig looks), and it works afterwards.
fn every_allocation() -> Result<u32, String> {
    let mut failures = 0;
    for (name, way) in WAYS {
        for nth in 0.. {
            let mut failed = false;
            try_with(SMALL, |rig| {
                let run = fail_nth(nth, || way(rig));
                failed = run.failed;
                let may = run.value.is_ok() || failed && run.value == Err(Error::NoMemory);
                assert!(may, "{name}, allocation {nth}: {:?}", run.value);
                rig.pass(SMALL.tick * 3);
                assert_eq!(way(rig), Ok(()), "{name}, allocation {nth}: it does not work afterwards");
                rig.settle();
                assert_eq!(rig.volume.sync_all_blocking(rig.cx), Ok(()), "{name}, allocation {nth}");
            })?;
            if !failed {
                break;
            }
            failures += 1;
        }
    }
    Ok(failures)
}

#[test]
fn a_pc_02_memory_that_runs_out_in_files_and_mappings() {
    assert!(every_allocation().unwrap() >= 4, "allocations were failed");
}

#[test]
fn a_pc_02_memory_that_runs_out_in_files_and_mappings_control() {
    let error = crate::broken::with(crate::broken::Hazard::MemoryIgnored, every_allocation).unwrap_err();
    assert!(error.contains("BadLength") || error.contains("out of range"), "{error}");
}
