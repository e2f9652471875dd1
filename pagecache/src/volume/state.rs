//! What the lock of a volume guards, and how an operation takes a step.
//!
//! An operation steps until it waits or is over; one step copies at most one page. Nothing here calls the device, allocates, or completes
//! anything: what is to be done with no lock held is left behind for [`Core::drive`](super::core::Core::drive).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use undercroft_block::{Blank, Data, Error, Features, Info};
use undercroft_hal::Instant;
use undercroft_hal::dma::DmaConstraints;

use crate::ahead::{Plan, Streams};
use crate::broken::{self, Hazard};
use crate::config::{Config, Stats};
use crate::io::{Io, Stage};
use crate::line::{Line, NOBODY};
use crate::memory::filled;
use crate::op::{Done, Kind, Op, Ops, Phase, To};
use crate::state::PageState;
use crate::table::{MOST_INDICES, NONE, PAGE, Reach, Table};
use crate::volume::aside::ASIDES;
use crate::volume::sync::{Errors, Flush};
use crate::volume::writeback::WriteBack;

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Again,
    Wait,
    Over(Result<(), Error>),
}

/// What an operation finds at a page.
pub(crate) enum Found {
    /// Its bytes, in this slot.
    Here(u32),
    /// It was put into a line.
    Waits,
    /// The page is not in the cache.
    Absent,
}

/// See the module.
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) table: Table,
    pub(crate) ops: Ops,
    /// What requests are made of: one for each that there can be.
    pub(super) blanks: Vec<Blank>,
    pub(crate) reads: Box<[Io]>,
    pub(crate) writes: Box<[Io]>,
    /// Pieces that a read may have, and what each may be.
    pub(super) pieces: usize,
    pub(super) reach: Reach,
    /// Those that want a page, a transfer, room for dirty pages or the end of a discard.
    pub(crate) stalled: Line,
    /// Those that may go on.
    pub(crate) runnable: Line,
    /// Those that are over, by the context of their completion.
    pub(crate) over: [Line; 2],
    /// One of those waits for a page that write-back may make free, or for fewer dirty ones.
    pub(crate) demand: bool,
    /// Operations that somebody is stepping, and that are in no line meanwhile.
    pub(crate) stepping: u32,
    /// Slots of pinned pages.
    pub(crate) pins: Box<[u32]>,
    /// Of those, pins of mappings for writing.
    pub(crate) mapped: Box<[bool]>,
    pub(crate) streams: Streams,
    pub(crate) back: WriteBack,
    pub(crate) flush: Flush,
    pub(crate) errors: Errors,
    /// Discards that keep others away from their range.
    pub(crate) fences: u32,
    /// Pages that are set aside, and how many such parts there are.
    pub(crate) asides: [Option<Range<u64>>; ASIDES],
    pub(crate) aside: u32,
    /// Chunks to be allocated; none while memory is known to be short.
    pub(crate) wants: u32,
    /// What was to be read ahead when memory was wanted.
    pub(crate) plan: Option<Plan>,
    pub(crate) short: bool,
    /// Bytes that operations may reach, and bytes that the device has.
    pub(crate) end: u64,
    pub(crate) device_end: u64,
    pub(crate) block_size: u32,
    pub(crate) features: Features,
    pub(crate) max_discard: u32,
    /// Why the device takes nothing any more.
    pub(crate) dead: Option<Error>,
    /// The medium was changed: nothing that is here is of this one.
    pub(crate) stale: bool,
    /// The device refused a request for want of room; and how often it said that it has room.
    pub(crate) full: bool,
    pub(crate) room: u64,
    pub(crate) counts: Stats,
}

/// Room for every request that a volume can send: its transfers, a flush, and a discard for each operation.
fn blanks(reads: usize, writes: usize, ops: &Ops) -> Result<Vec<Blank>, Error> {
    let count = reads + writes + 1 + ops.capacity();
    let mut blanks = Vec::new();
    blanks.try_reserve_exact(count).map_err(|_| Error::NoMemory)?;
    for _ in 0..count {
        blanks.push(Blank::try_new()?);
    }
    Ok(blanks)
}

/// Transfers, at least one.
fn ios(count: u16, mut make: impl FnMut() -> Result<Io, Error>) -> Result<Box<[Io]>, Error> {
    let mut all = Vec::new();
    all.try_reserve_exact(usize::from(count.max(1))).map_err(|_| Error::NoMemory)?;
    for _ in 0..count.max(1) {
        all.push(make()?);
    }
    Ok(all.into_boxed_slice())
}

impl State {
    /// A volume's cache over a device of this shape.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; [`Error::Unsupported`] for blocks larger than a page, a device that takes less than a page, or one of more than 8 PiB.
    pub(crate) fn new(config: Config, info: &Info) -> Result<Self, Error> {
        let limits = &info.limits;
        let boundary = u32::try_from(limits.dma.boundary).ok().filter(|boundary| *boundary != 0).unwrap_or(u32::MAX);
        let piece = limits.max_segment_bytes.min(boundary);
        let (most, read) = (config.transfer.min(piece), config.read.min(limits.max_transfer_bytes));
        let most = most.min(limits.max_transfer_bytes);
        let fits = info.block_size.is_power_of_two() && (512..=PAGE as u32).contains(&info.block_size);
        let fits = fits && info.bytes() <= MOST_INDICES * PAGE as u64;
        if !fits || most < PAGE as u32 && config.transfer >= PAGE as u32 {
            return Err(Error::Unsupported);
        }
        let pages = |bytes: u32| (bytes as usize / PAGE).clamp(1, config.pages.max(1) as usize);
        let align = limits.dma.align.max(512);
        // Where pieces meet they end and begin with pages.
        let whole = limits.joint as usize <= PAGE;
        let pieces = if whole { usize::from(limits.max_segments.max(1)) } else { 1 };
        let reach = Reach { pages: piece / PAGE as u32, boundary: limits.dma.boundary };
        let (table, ops) = (Table::new(config.pages)?, Ops::new(config.operations)?);
        let reads = ios(config.reads.saturating_add(1), || Io::read(pages(read), pieces))?;
        let writes = ios(config.writes, || Io::write(pages(most), DmaConstraints { align, ..limits.dma }))?;
        Ok(Self {
            table,
            blanks: blanks(reads.len(), writes.len(), &ops)?,
            ops,
            reads,
            writes,
            pieces,
            reach,
            stalled: Line::EMPTY,
            runnable: Line::EMPTY,
            over: [Line::EMPTY; 2],
            demand: false,
            stepping: 0,
            pins: filled(usize::from(config.pins.clamp(1, NOBODY - 1)), |_| NONE)?,
            mapped: filled(usize::from(config.pins.clamp(1, NOBODY - 1)), |_| false)?,
            streams: Streams::new(config.ahead.min(config.pages / 2)),
            back: WriteBack::new(&config),
            flush: Flush::new(),
            errors: Errors::new(config.handles)?,
            fences: 0,
            asides: [const { None }; ASIDES],
            aside: 0,
            wants: 0,
            plan: None,
            short: false,
            end: info.bytes(),
            device_end: info.bytes(),
            block_size: info.block_size,
            features: info.features,
            max_discard: info.limits.max_discard_blocks,
            dead: None,
            stale: false,
            full: false,
            room: 0,
            counts: Stats::default(),
            config,
        })
    }

    /// Begins an operation, if there is a slot. It is for the caller to step it.
    pub(crate) fn begin(
        &mut self,
        kind: Kind,
        start: u64,
        end: u64,
        data: Data,
        done: Done,
    ) -> Result<u16, (Data, Done)> {
        let id = self.ops.begin(kind, start, end, data, done)?;
        self.stepping += 1;
        Ok(id)
    }

    /// Takes a step of an operation: whether it is to be stepped again.
    pub(crate) fn step(&mut self, id: u16) -> bool {
        let step = match self.ops.get(id).kind {
            Kind::Read => self.step_read(id),
            Kind::Write => self.step_write(id),
            Kind::Pin => self.step_pin(id),
            Kind::Ready => self.step_ready(id),
            Kind::Sync => self.step_sync(id),
            Kind::Discard { device } => self.step_discard(id, device),
            Kind::Idle => Step::Wait,
        };
        match step {
            Step::Again => true,
            Step::Wait => false,
            Step::Over(result) => {
                self.finish(id, result);
                false
            }
        }
    }

    /// An operation is over: it waits for its completion.
    pub(crate) fn finish(&mut self, id: u16, result: Result<(), Error>) {
        let op = self.ops.get_mut(id);
        (op.kind, op.result) = (Kind::Idle, result);
        let in_task = matches!(op.done, Some(Done(To::Task(..))));
        self.ops.push(&mut self.over[usize::from(in_task)], id);
    }

    /// Puts an operation among those that want something that there is not now.
    pub(crate) fn stall(&mut self, id: u16) -> Step {
        self.ops.push(&mut self.stalled, id);
        Step::Wait
    }

    /// The same, for one that write-back may help.
    pub(crate) fn stall_for_write_back(&mut self, id: u16) -> Step {
        self.demand = true;
        self.stall(id)
    }

    /// Something changed that those in line may have waited for.
    pub(crate) fn retry_stalled(&mut self) {
        self.demand = false;
        while let Some(id) = self.ops.pop(&mut self.stalled) {
            self.ops.push(&mut self.runnable, id);
        }
    }

    /// Ends those in line: nothing will change for them. Writers are told of the device's error, others that there is no memory.
    pub(crate) fn fail_stalled(&mut self, error: Error) {
        self.demand = false;
        while let Some(id) = self.ops.pop(&mut self.stalled) {
            let writer = matches!(self.ops.get(id).kind, Kind::Write | Kind::Ready);
            if broken::is(Hazard::ForgottenWithoutMemory) {
                continue;
            }
            self.release_fence(id);
            self.finish(id, Err(if writer { error } else { Error::NoMemory }));
        }
    }

    /// Whether nothing is under way that could help those in line, or about to be.
    pub(crate) fn is_stuck(&self) -> bool {
        let busy = |io: &Io| io.stage != Stage::Idle;
        let discards =
            |op: &Op| matches!(op.kind, Kind::Discard { .. }) && (op.phase == Phase::Sent || op.phase == Phase::Device);
        !self.stalled.is_empty()
            && self.runnable.is_empty()
            && self.stepping == 0
            && self.wants == 0
            && !self.reads.iter().any(busy)
            && !self.writes.iter().any(busy)
            && !self.ops.all().any(|(_, op)| discards(op))
            // Another CPU may be about to begin the write-back that it has just asked for.
            && (broken::is(Hazard::StuckTooSoon) || !self.can_write())
    }

    /// Looks for a page on behalf of an operation, and puts that into the page's line if it has to wait there.
    pub(crate) fn approach(&mut self, id: u16, index: u64) -> Found {
        let Some(slot) = self.table.find(index) else { return Found::Absent };
        let page = self.table.page(slot);
        let reading = self.table.state(slot) == PageState::Reading && !broken::is(Hazard::OverReading);
        // Who is there first is served first.
        if reading || !page.waiters.is_empty() {
            self.wait_for(id, slot);
            return Found::Waits;
        }
        Found::Here(slot)
    }

    /// Puts an operation into a page's line.
    pub(crate) fn wait_for(&mut self, id: u16, slot: u32) {
        self.ops.get_mut(id).waited = true;
        let mut line = self.table.take_line(slot);
        if broken::is(Hazard::WaiterLost) {
            line = Line::EMPTY;
        }
        if broken::is(Hazard::LastFirst) && !line.is_empty() {
            let mut first = Line::EMPTY;
            self.ops.push(&mut first, id);
            while let Some(id) = self.ops.pop(&mut line) {
                self.ops.push(&mut first, id);
            }
            line = first;
        } else {
            self.ops.push(&mut line, id);
        }
        self.table.line(slot, |waiters| *waiters = line);
    }

    /// Steps those that wait for a page, in order, once each.
    pub(crate) fn wake(&mut self, slot: u32) {
        let mut line = self.table.take_line(slot);
        while let Some(id) = self.ops.pop(&mut line) {
            if self.step(id) {
                self.ops.push(&mut self.runnable, id);
            }
        }
    }

    /// Whether `pages` pages can be had without another chunk; if not, and there may be one, it is asked for.
    pub(crate) fn has_room(&mut self, pages: u32) -> bool {
        let free = self.table.free();
        let grow = self.table.may_grow().min(pages.saturating_sub(free).div_ceil(self.table.chunk()));
        if grow > 0 && !self.short {
            self.wants = self.wants.max(grow);
            return false;
        }
        true
    }

    /// Bytes of a page that the device has.
    pub(crate) fn bytes_of(&self, index: u64) -> usize {
        let start = index.saturating_mul(PAGE as u64);
        self.device_end.saturating_sub(start).min(PAGE as u64) as usize
    }

    /// What it has seen, and has now.
    pub(crate) fn stats(&self) -> Stats {
        let count = |state| self.table.count(state);
        Stats {
            evictions: self.table.evictions,
            ahead_wasted: self.table.wasted,
            pages: self.table.with_memory(),
            clean: count(PageState::Clean),
            dirty: count(PageState::Dirty) + count(PageState::Redirtied),
            writing: count(PageState::Writing) + count(PageState::Redirtied),
            reading: count(PageState::Reading),
            operations: self.ops.used(),
            ..self.counts
        }
    }

    /// The device takes nothing any more.
    pub(crate) fn die(&mut self, error: Error) {
        self.dead = self.dead.or(Some(error));
        self.fail_stalled(error);
        self.fail_syncs(error);
    }

    /// Time passed.
    pub(crate) fn now() -> Instant {
        Instant::now()
    }
}
