//! The driver against the model of another hand. Each test runs the true driver, interrupts and bottom halves included.

mod basics;
mod hazards;
mod hostile;
mod ladder;
mod reach;
mod recovery;
mod shapes;
mod trapped;

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::Mutex;

use undercroft_block::{
    BlockDevice, Complete, Completion, Data, Error, Event, Op, Piece, Rejected, Request, Tag, Watcher,
};
use undercroft_hal::context::{self, Kind};
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::hosted::{TrapAlloc, trap};
use undercroft_hal::{BottomHalf, Duration, Instant, Task, cpu, pci};
use undercroft_hosts::ata::{Channel, Drive, Fault, FaultScript, Mode, Piix, Settings};
use undercroft_hosts::{Config, Disk, Handle, Machine, Schedule};

use crate::defect::{Defect, Defects};
use crate::probe::{Found, probe_with};
use crate::{AtaDisk, ProbeError};

/// Allocations in the wrong place end the program.
#[global_allocator]
static ALLOC: TrapAlloc = TrapAlloc::new();

pub(super) const GOOD: Defects = Defects::none();
const SECTORS: u64 = 1 << 16;
pub(super) const SCHEDULES: [Schedule; 3] = [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM];

/// What came back.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) cookie: u64,
    pub(super) request: Request,
    pub(super) result: Result<(), Error>,
    pub(super) context: Kind,
}

/// Collects completions and events. What it allocates is the test's, not the driver's.
#[derive(Debug, Default)]
pub(super) struct Sink {
    done: Mutex<Vec<Done>>,
    pub(super) events: Mutex<Vec<Event>>,
}

impl Sink {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(super) fn count(&self) -> usize {
        self.done.lock().unwrap().len()
    }

    pub(super) fn take(&self) -> Vec<Done> {
        core::mem::take(&mut *self.done.lock().unwrap())
    }

    pub(super) fn to(self: &Arc<Self>, cookie: u64) -> Completion {
        Completion::new(self.clone(), cookie)
    }

    /// Waits for `count` completions in all.
    pub(super) fn wait(&self, task: &Task, count: usize) -> Vec<Done> {
        task.wait_until(|| self.count() >= count);
        self.take()
    }

    pub(super) fn one(&self, task: &Task) -> Done {
        self.wait(task, 1).remove(0)
    }

    /// Waits as the clock's watcher does, who tells `disk` of the time; at most `limit` passes.
    pub(super) fn watch(
        &self,
        task: &Task,
        machine: &Machine,
        disk: &AtaDisk,
        count: usize,
        limit: Duration,
    ) -> Vec<Done> {
        let start = Instant::now();
        while self.count() < count {
            settle(task, 50);
            let now = Instant::now();
            assert!(now.since(start) <= limit, "{} of {count} after {:?}", self.count(), now.since(start));
            match disk.expire(now) {
                Some(at) if at > now => machine.advance(at.since(now).as_nanos() as u64 / 2 + 1000),
                _ => machine.advance(1_000_000),
            }
        }
        self.take()
    }
}

impl Complete for Sink {
    fn complete(&self, _cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        let context = context::current();
        trap::outside(|| self.done.lock().unwrap().push(Done { cookie, request, result, context }));
    }
}

impl Watcher for Sink {
    fn event(&self, _cx: &BottomHalf, event: Event) {
        trap::outside(|| self.events.lock().unwrap().push(event));
    }
}

/// Lets everything that is pending happen.
pub(super) fn settle(task: &Task, rounds: usize) {
    for _ in 0..rounds {
        task.run_pending();
        cpu::relax();
    }
}

/// A machine with an IDE controller.
pub(super) struct Rig {
    pub(super) machine: Rc<Machine>,
    pub(super) host: Handle<Piix>,
    pub(super) disk: Disk,
}

/// What each sector of the disk at a place holds.
pub(super) const fn seed(place: usize) -> u64 {
    3 + place as u64
}

fn drive(place: usize, settings: Option<Settings>) -> (Option<Drive>, Disk) {
    let disk = Disk::patterned(SECTORS, seed(place));
    (settings.map(|settings| Drive::with_settings(disk.clone(), settings)), disk)
}

impl Rig {
    /// One disk with everything.
    pub(super) fn new() -> Self {
        Self::with(Config::default(), Settings::default())
    }

    pub(super) fn schedule(schedule: Schedule) -> Self {
        Self::with(Config { schedule, ..Config::default() }, Settings::default())
    }

    pub(super) fn settings(settings: Settings) -> Self {
        Self::with(Config::default(), settings)
    }

    /// A disk that the CPU moves the data of.
    pub(super) fn pio(schedule: Schedule, max_multiple: u8) -> Self {
        Self::with(
            Config { schedule, ..Config::default() },
            Settings { dma: false, fua: false, trim_blocks: 0, max_multiple, ..Settings::default() },
        )
    }

    pub(super) fn with(config: Config, settings: Settings) -> Self {
        Self::full(config, [Some(settings), None, None, None], Mode::Compatible, true)
    }

    /// Two disks on the primary channel and one on the secondary.
    pub(super) fn three(config: Config) -> Self {
        let some = || Some(Settings::default());
        Self::full(config, [some(), some(), some(), None], Mode::Compatible, true)
    }

    pub(super) fn full(config: Config, drives: [Option<Settings>; 4], mode: Mode, bus_master: bool) -> Self {
        let [a, b, c, d] = drives;
        let ((a, disk), (b, _), (c, _), (d, _)) = (drive(0, a), drive(1, b), drive(2, c), drive(3, d));
        let piix = Piix::with_mode(Channel::new(a, b), Channel::new(c, d), mode, bus_master);
        let machine = Machine::new(config);
        let host = machine.add_pci(piix);
        Self { machine, host, disk }
    }

    /// Sets the fault script of the primary channel.
    pub(super) fn faults(self, script: FaultScript) -> Self {
        self.host.with(|host| host.channels[0].set_faults(script));
        self
    }

    pub(super) fn probe(&self, task: &Task, defects: Defects) -> Result<Found, ProbeError> {
        let function = pci::devices(task)[0];
        Ok(probe_with(task, function, &[], defects)?.expect("an IDE controller"))
    }

    /// Runs `f` with what was found, and checks afterwards that nothing is left and that the driver kept to the specification.
    pub(super) fn run<R>(&self, f: impl FnOnce(&Task, Found) -> R) -> R {
        self.run_with(GOOD, f)
    }

    pub(super) fn run_with<R>(&self, defects: Defects, f: impl FnOnce(&Task, Found) -> R) -> R {
        let result = self.machine.run(|task| {
            let found = self.probe(task, defects).expect("probes");
            let result = f(task, found);
            // A reset may be on its way.
            settle(task, 100_000);
            result
        });
        self.check();
        result
    }

    pub(super) fn check(&self) {
        assert_eq!(self.host.with(|host| host.breaches()), [], "breaches");
        assert_eq!(self.machine.live_dma_blocks(), 0, "memory left behind");
    }

    /// Runs `f` with the first disk.
    pub(super) fn disk<R>(&self, defects: Defects, f: impl FnOnce(&Task, Arc<AtaDisk>) -> R) -> R {
        self.run_with(defects, |task, mut found| {
            assert_eq!(found.failures, []);
            let disk = found.disks.remove(0);
            drop(found);
            f(task, disk)
        })
    }

    /// Commands that the drive at `place` began: code, sector, sectors.
    pub(super) fn log(&self, place: usize) -> Vec<(u8, u64, u32)> {
        self.host.with(|host| host.channels[place / 2].drive(place % 2).log().to_vec())
    }
}

/// Whether `f` panics with a message that contains `with`: what a check does with a broken twin. The machine it ran on is not used again.
pub(super) fn caught(with: &str, f: impl FnOnce()) -> bool {
    let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)) else { return false };
    let message = payload.downcast_ref::<std::string::String>().map(|text| &text[..]);
    let message = message.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or_default();
    assert!(message.contains(with), "caught by another check: {message}");
    true
}

pub(super) fn buffer(bytes: usize) -> DmaBuf {
    DmaBuf::new(bytes, DmaConstraints::ANY).expect("memory")
}

pub(super) fn read(lba: u64, blocks: u32, completion: Completion) -> Request {
    Request::new(Op::Read, lba, blocks, buffer(blocks as usize * 512).into(), completion)
}

pub(super) fn write(lba: u64, fill: &[u8], completion: Completion) -> Request {
    let mut buf = buffer(fill.len());
    buf.copy_from_slice(fill);
    Request::new(Op::Write, lba, (fill.len() / 512) as u32, buf.into(), completion)
}

/// A read into pieces of these many bytes.
pub(super) fn scattered(lba: u64, pieces: &[usize], completion: Completion) -> Request {
    let list: Vec<Piece> = pieces.iter().map(|&len| Piece::from(buffer(len))).collect();
    let blocks = pieces.iter().sum::<usize>() / 512;
    Request::new(Op::Read, lba, blocks as u32, Data::List(list), completion)
}

pub(super) fn bytes(request: &Request) -> Vec<u8> {
    request.data.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect()
}

/// What sectors of the untouched disk at `place` hold.
pub(super) fn pattern(place: usize, sector: u64, sectors: u64) -> Vec<u8> {
    (sector..sector + sectors).flat_map(|sector| Disk::pattern(seed(place), sector)).collect()
}

/// Submits and commits one.
pub(super) fn go(disk: &AtaDisk, request: Request) -> Result<Tag, Rejected> {
    let tag = disk.submit(request)?;
    disk.commit();
    Ok(tag)
}

/// The code of a fill that tells sectors apart.
pub(super) fn fill(sectors: usize, salt: u8) -> Vec<u8> {
    (0..sectors * 512).map(|at| (at / 512 * 7 + at) as u8 ^ salt).collect()
}
