//! Syncs: exactly what was written before, whatever order it ends in, then a flush.
//!
//! A sync takes the present epoch and begins the next. Dirty pages of its range carry its epoch or an earlier one, those changed later do not;
//! so it waits for as many attempts as there are such pages, counting each when its scan has passed the page. A write-back that fails is an
//! attempt: its page is dated anew.

use alloc::boxed::Box;

use undercroft_block::{Error, Features};

use super::state::{State, Step};
use super::writeback::is_within;
use crate::broken::{self, Hazard};
use crate::line::Line;
use crate::memory::filled;
use crate::op::{Kind, Phase};
use crate::table::PAGE;

/// Pages that a scan looks at per step.
pub(super) fn batch() -> u64 {
    if broken::is(Hazard::HeldForAll) { u64::MAX } else { 64 }
}

/// Flushes, one at the device at a time, numbered.
#[derive(Debug)]
pub(crate) struct Flush {
    started: u64,
    pub(crate) at_device: bool,
    /// It is to be sent.
    pub(crate) queued: bool,
    line: Line,
}

impl Flush {
    pub(crate) const fn new() -> Self {
        Self { started: 0, at_device: false, queued: false, line: Line::EMPTY }
    }
}

/// What failed behind the back of those who wrote.
#[derive(Debug)]
pub(crate) struct Errors {
    count: u64,
    last: Error,
    /// Of each handle, how many it has been told of. `None`: no such handle.
    seen: Box<[Option<u64>]>,
}

impl Errors {
    pub(crate) fn new(handles: u16) -> Result<Self, Error> {
        Ok(Self { count: 0, last: Error::Broken, seen: filled(usize::from(handles.max(1)), |_| None)? })
    }

    /// A write-back or flush failed.
    pub(crate) fn note(&mut self, error: Error) {
        self.count += 1;
        self.last = error;
    }

    /// A new handle, which is told of what fails from now on.
    pub(crate) fn open(&mut self) -> Option<u16> {
        let at = self.seen.iter().position(Option::is_none)?;
        self.seen[at] = Some(self.count);
        Some(at as u16)
    }

    pub(crate) fn close(&mut self, handle: u16) {
        self.seen[usize::from(handle)] = None;
    }

    /// What a handle has not been told of yet; from now on it has.
    fn tell(&mut self, handle: u16) -> Option<Error> {
        let seen = self.seen.get_mut(usize::from(handle))?.as_mut()?;
        let news = *seen != self.count;
        if !broken::is(Hazard::StickyError) {
            *seen = self.count;
        }
        news.then_some(self.last)
    }
}

impl State {
    pub(super) fn step_sync(&mut self, id: u16) -> Step {
        match self.ops.get(id).phase {
            Phase::Begin => self.begin_sync(id),
            Phase::Scan => self.scan_for_sync(id),
            Phase::Written | Phase::Device | Phase::Sent => Step::Wait,
        }
    }

    fn begin_sync(&mut self, id: u16) -> Step {
        if let Some(error) = self.dead {
            return Step::Over(Err(error));
        }
        let op = self.ops.get(id);
        if op.start >= op.end {
            return Step::Over(Ok(()));
        }
        let (epoch, unsent) = (self.table.epoch, self.table.unsent());
        self.table.epoch = epoch.wrapping_add(1);
        let (slots, end) = (self.table.pages.len() as u64, self.end);
        let op = self.ops.get_mut(id);
        op.covers = epoch;
        op.phase = Phase::Scan;
        let (first, last) = (op.start / PAGE as u64, op.end.saturating_sub(1) / PAGE as u64);
        if op.start == 0 && op.end >= end {
            // All of it: that is known without a look at each page.
            // That includes what is behind an end that was just cut off.
            (op.by_slot, op.at, op.left, op.end) = (true, slots, unsent, u64::MAX);
            self.back.wanted = Some(epoch);
        } else {
            op.by_slot = last - first + 1 > slots;
            op.at = if op.by_slot { 0 } else { first };
        }
        Step::Again
    }

    fn scan_for_sync(&mut self, id: u16) -> Step {
        if let Some(error) = self.dead {
            return Step::Over(Err(error));
        }
        let op = self.ops.get(id);
        let (covers, by_slot, from) = (op.covers, op.by_slot, op.at);
        let (first, last) = (op.start / PAGE as u64, op.end.saturating_sub(1) / PAGE as u64);
        let end = if by_slot { self.table.pages.len() as u64 } else { last + 1 };
        let to = end.min(from.saturating_add(batch()));
        let mut left = 0;
        for at in from..to {
            let slot = if by_slot { Some(at as u32) } else { self.table.find(at) };
            let Some(slot) = slot else { continue };
            let (state, page) = (self.table.state(slot), self.table.page(slot));
            let (index, since) = (page.index, page.since);
            if !(first..=last).contains(&index) {
                continue;
            }
            if state.is_dirty() && is_within(since, covers) {
                self.table.hurry(slot);
                left += 1;
            }
            if state.is_writing() && self.sent_since(index, slot).is_some_and(|since| is_within(since, covers)) {
                left += 1;
            }
        }
        let op = self.ops.get_mut(id);
        (op.at, op.left) = (to.max(from), op.left + left);
        if op.at < end {
            return Step::Again;
        }
        op.phase = Phase::Written;
        self.when_written(id);
        Step::Wait
    }

    /// The epoch of a page's bytes that are on their way to the device.
    fn sent_since(&self, index: u64, slot: u32) -> Option<u32> {
        self.writes.iter().find_map(|io| {
            let (of, since) = io.pages[io.position(index)?];
            (of == slot).then_some(since)
        })
    }

    /// A write-back of a page ended, or there is nothing left of it to write.
    pub(super) fn attempted(&mut self, index: u64, slot: u32, since: u32, result: Result<(), Error>) {
        if !self.syncing() {
            return;
        }
        for id in 0..self.ops.capacity() as u16 {
            let op = self.ops.get_mut(id);
            if op.kind != Kind::Sync || !matches!(op.phase, Phase::Scan | Phase::Written) {
                continue;
            }
            let at = if op.by_slot { u64::from(slot) } else { index };
            let inside = (op.start / PAGE as u64..=op.end.saturating_sub(1) / PAGE as u64).contains(&index);
            if !inside || at >= op.at || !is_within(since, op.covers) {
                continue;
            }
            op.left = op.left.saturating_sub(1);
            if let Err(error) = result {
                op.error.get_or_insert(error);
            }
            if broken::is(Hazard::NewestOnly) {
                op.left = 0;
            }
            self.when_written(id);
        }
    }

    fn syncing(&self) -> bool {
        self.ops.all().any(|(_, op)| op.kind == Kind::Sync && matches!(op.phase, Phase::Scan | Phase::Written))
    }

    /// If a sync has nothing to wait for any more, it wants a flush.
    fn when_written(&mut self, id: u16) {
        let op = self.ops.get_mut(id);
        if op.phase != Phase::Written || op.left > 0 {
            return;
        }
        op.phase = Phase::Device;
        if !self.syncing() {
            self.back.wanted = None;
        }
        if !self.features.contains(Features::VOLATILE_CACHE) {
            self.end_sync(id);
            return;
        }
        // Not the one that is under way: it may have begun before the last write ended.
        let flush = if broken::is(Hazard::AnyFlush) { self.flush.started.max(1) } else { self.flush.started + 1 };
        self.ops.get_mut(id).flush = flush;
        self.ops.push(&mut self.flush.line, id);
        self.begin_flush();
    }

    fn begin_flush(&mut self) {
        let busy = self.flush.at_device || self.flush.queued;
        if !busy && !self.flush.line.is_empty() {
            self.flush.started += 1;
            self.flush.queued = true;
        }
    }

    /// A flush ended.
    pub(super) fn flushed(&mut self, result: Result<(), Error>) {
        self.flush.at_device = false;
        self.counts.flushes += 1;
        if let Err(error) = result {
            self.counts.write_errors += 1;
            self.errors.note(error);
        }
        let started = self.flush.started;
        while let Some(id) = Some(self.flush.line.head).filter(|id| *id != crate::line::NOBODY) {
            if self.ops.get(id).flush > started {
                break;
            }
            let mut line = self.flush.line;
            let _ = self.ops.pop(&mut line);
            self.flush.line = line;
            if let Err(error) = result {
                self.ops.get_mut(id).error.get_or_insert(error);
            }
            self.end_sync(id);
        }
        self.begin_flush();
    }

    fn end_sync(&mut self, id: u16) {
        let op = self.ops.get(id);
        let (own, handle) = (op.error, op.handle);
        let news = self.errors.tell(handle);
        self.finish(id, own.or(news).map_or(Ok(()), Err));
    }

    /// No sync will be done any more. One whose flush the device has is ended by that.
    pub(super) fn fail_syncs(&mut self, error: Error) {
        for id in 0..self.ops.capacity() as u16 {
            let op = self.ops.get_mut(id);
            if op.kind == Kind::Sync && op.phase == Phase::Written {
                op.phase = Phase::Device;
                self.finish(id, Err(error));
            }
        }
        self.back.wanted = None;
        if self.flush.queued {
            self.flush.queued = false;
            self.flushed(Err(error));
        }
    }
}
