//! One worker of the power workload: writes a generation, has it made durable, says so, reads a part of it back, and goes on. Driven by its
//! completions; begun in task context.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use undercroft_block::{BlockDevice, Complete, Completion, Data, Error, Op, Request};
use undercroft_hal::context::NotHardIrq;
use undercroft_hal::dma::DmaBuf;
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::TaskWork;
use undercroft_hal::{BottomHalf, Task};
use undercroft_pagecache::{Done, FinishInTask, Outcome, Volume};

use super::plan::{Author, Extent, SECTOR};
use crate::json::{Object, Value};
use crate::options::Acks;
use crate::report::Voice;

/// Every so many generations go without a flush: through a queue their writes are durable when they complete.
const DURABLE: u64 = 4;
/// Sectors of a piece, where an extent is written by several requests at once, each of which continues the one before.
const PIECE: u64 = 2;
/// Cookies: a read, a flush; else a write.
const READ: u64 = 1;
const FLUSH: u64 = 2;
const WRITE: u64 = 3;

/// What a disk is written through.
pub(super) enum Path {
    Queue(Arc<dyn BlockDevice>),
    Cache(Volume),
}

/// What is under way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Nothing,
    Writes,
    Flush,
    Read,
    Over,
}

const STEPS: [Step; 5] = [Step::Nothing, Step::Writes, Step::Flush, Step::Read, Step::Over];

/// What a worker does, all its life.
pub(super) struct Job {
    pub(super) author: Author,
    pub(super) serial: alloc::string::String,
    pub(super) path: Path,
    /// The first sector of the region.
    pub(super) start: u64,
    pub(super) generations: u64,
    pub(super) acks: Acks,
    pub(super) voice: Voice,
    /// Told when it is over.
    pub(super) ended: Arc<TaskWork>,
}

pub(super) struct Worker {
    job: Job,
    me: Weak<Self>,
    step: AtomicU8,
    generation: AtomicU64,
    /// Operations that are out, and one while they are being sent.
    left: AtomicUsize,
    /// Why it ended early.
    failure: IrqSpinLock<Option<Error>>,
    mismatch: AtomicBool,
}

impl Worker {
    pub(super) fn new(job: Job) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            job,
            me: me.clone(),
            step: AtomicU8::new(Step::Nothing as u8),
            generation: AtomicU64::new(0),
            left: AtomicUsize::new(0),
            failure: IrqSpinLock::new(Rank::BLOCK, None),
            mismatch: AtomicBool::new(false),
        })
    }

    pub(super) fn is_over(&self) -> bool {
        self.step() == Step::Over
    }

    pub(super) fn failure(&self) -> Option<Error> {
        *self.failure.lock()
    }

    /// Whether a read did not find what had been written.
    pub(super) fn has_mismatch(&self) -> bool {
        self.mismatch.load(Ordering::Acquire)
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn serial(&self) -> &str {
        &self.job.serial
    }

    fn step(&self) -> Step {
        STEPS[usize::from(self.step.load(Ordering::Acquire))]
    }

    fn enter(&self, step: Step) {
        self.step.store(step as u8, Ordering::Release);
    }

    /// Goes on from a step all of whose operations are back, and from the next one if its are back at once.
    pub(super) fn run(&self, cx: &impl NotHardIrq) {
        loop {
            // One for us: no completion ends the step while it is sent.
            self.left.store(1, Ordering::Release);
            self.advance(cx);
            if let Path::Queue(device) = &self.job.path {
                device.commit();
            }
            if self.is_over() {
                self.job.ended.schedule();
                return;
            }
            if self.left.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
        }
    }

    fn advance(&self, cx: &impl NotHardIrq) {
        if self.failure().is_some() || self.has_mismatch() {
            return self.enter(Step::Over);
        }
        match self.step() {
            Step::Nothing | Step::Read => self.write(cx),
            Step::Writes if self.job.acks == Acks::Flushed && !self.is_durable() => {
                self.enter(Step::Flush);
                self.operate(cx, FLUSH, None);
            }
            Step::Writes | Step::Flush => {
                self.acknowledge();
                self.enter(Step::Read);
                let first = self.job.author.plan(self.job.start, self.generation()).first().copied();
                self.operate(cx, READ, first);
            }
            Step::Over => {}
        }
    }

    /// Whether the writes of this generation need no flush.
    fn is_durable(&self) -> bool {
        matches!(self.job.path, Path::Queue(_)) && self.generation().is_multiple_of(DURABLE)
    }

    fn write(&self, cx: &impl NotHardIrq) {
        let generation = self.generation() + 1;
        if generation > self.job.generations {
            return self.enter(Step::Over);
        }
        self.generation.store(generation, Ordering::Release);
        self.enter(Step::Writes);
        if self.job.acks == Acks::Early {
            self.operate(cx, FLUSH, None);
        }
        let in_pieces = matches!(self.job.path, Path::Queue(_)) && !generation.is_multiple_of(2);
        for Extent { sector, count } in self.job.author.plan(self.job.start, generation) {
            let size = if in_pieces { PIECE } else { count };
            for at in (0..count).step_by(size as usize) {
                self.operate(cx, WRITE, Some(Extent { sector: sector + at, count: size.min(count - at) }));
            }
        }
    }

    /// Before anything else is done, the host is told what it may rely on.
    fn acknowledge(&self) {
        let (worker, generation) = (self.job.author.worker, self.generation());
        self.job.voice.say(&Object {
            event: Some("ack"),
            fields: &[
                ("disk", Value::Text(&self.job.serial)),
                ("worker", Value::Number(worker)),
                ("generation", Value::Number(generation)),
            ],
        });
    }

    fn data(&self, cookie: u64, extent: Option<Extent>) -> Result<Data, Error> {
        let Some(extent) = extent else { return Ok(Data::None) };
        let device = match &self.job.path {
            Path::Queue(device) => device,
            Path::Cache(volume) => volume.device(),
        };
        let mut buffer =
            DmaBuf::new(extent.count as usize * SECTOR, device.info().limits.dma).map_err(|_| Error::NoMemory)?;
        if cookie == WRITE {
            self.job.author.fill(&mut buffer, extent.sector, self.generation());
        } else {
            buffer.fill(0xee);
        }
        Ok(Data::from(buffer))
    }

    /// Sends an operation.
    fn operate(&self, cx: &impl NotHardIrq, cookie: u64, extent: Option<Extent>) {
        if let Err(error) = self.try_operate(cx, cookie, extent) {
            self.failure.lock().get_or_insert(error);
        }
    }

    fn try_operate(&self, cx: &impl NotHardIrq, cookie: u64, extent: Option<Extent>) -> Result<(), Error> {
        let me = self.me.upgrade().ok_or(Error::Broken)?;
        let data = self.data(cookie, extent)?;
        let Extent { sector, count } = extent.unwrap_or(Extent { sector: 0, count: 0 });
        self.left.fetch_add(1, Ordering::AcqRel);
        let sent = match &self.job.path {
            Path::Queue(device) => {
                let op = match cookie {
                    READ => Op::Read,
                    FLUSH => Op::Flush,
                    _ => Op::Write,
                };
                let mut request = Request::new(op, sector, count as u32, data, Completion::new(me, cookie));
                request.fua = cookie == WRITE && self.is_durable() && self.job.acks == Acks::Flushed;
                device.submit(request).map(drop).map_err(|rejected| rejected.error().unwrap_or(Error::Busy))
            }
            Path::Cache(volume) => {
                let (at, done) = (sector * SECTOR as u64, Done::in_task(me, cookie));
                let sent = match cookie {
                    READ => volume.read(cx, at, data, done),
                    FLUSH => volume.sync_all(cx, done),
                    _ => volume.write(cx, at, data, done),
                };
                sent.map_err(|refused| refused.error.unwrap_or(Error::Busy))
            }
        };
        if sent.is_err() {
            self.left.fetch_sub(1, Ordering::AcqRel);
        }
        sent
    }

    /// An operation is over.
    fn back(&self, cx: &impl NotHardIrq, cookie: u64, data: Data, result: Result<(), Error>) {
        match result {
            Err(error) => {
                self.failure.lock().get_or_insert(error);
            }
            Ok(()) if cookie == READ => self.look(&data),
            Ok(()) => {}
        }
        drop(data);
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.run(cx);
        }
    }

    /// A worker reads what it wrote.
    fn look(&self, data: &Data) {
        let generation = self.generation();
        let extent = self.job.author.plan(self.job.start, generation).first().copied();
        let holds = match (extent, data.pieces()) {
            (Some(extent), [piece]) => self.job.author.matches(piece.bytes(), extent.sector, generation),
            _ => false,
        };
        if !holds {
            self.mismatch.store(true, Ordering::Release);
        }
    }
}

impl Complete for Worker {
    fn complete(&self, cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        self.back(cx, cookie, request.into_data(), result);
    }
}

impl FinishInTask for Worker {
    fn finish(&self, cx: &Task, cookie: u64, outcome: Outcome) {
        self.back(cx, cookie, outcome.data, outcome.result);
    }
}
