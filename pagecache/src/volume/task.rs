//! Operations of a task that waits for them, on slices of its own.
//!
//! What is here is copied at once. Where a page is not, the task waits until it is, pinned, and copies then: so a slice is used during the call
//! only, by the caller's own context.

use core::ops::Range;

use undercroft_block::Error;
use undercroft_hal::Task;

use super::Volume;
use super::state::State;
use crate::ahead::Plan;
use crate::broken::{self, Hazard};
use crate::line::NOBODY;
use crate::op::Kind;
use crate::pin::Pinned;
use crate::state::PageState;
use crate::table::PAGE;

/// Pages that are copied in one hold of the lock: bottom halves of this CPU wait meanwhile.
const RUN: u64 = 4;

impl Volume {
    /// Reads bytes from `start` on.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], or why a page could not be read; what is in `into` is not defined then.
    pub fn read_blocking(&self, cx: &Task, start: u64, into: &mut [u8]) -> Result<(), Error> {
        let end = start.checked_add(into.len() as u64).ok_or(Error::OutOfRange)?;
        let (mut at, mut noted) = (start, false);
        loop {
            let mut found = self.found_before(cx, at / PAGE as u64);
            // On its way while the lock is taken.
            self.core.index.fetch(at / PAGE as u64);
            // One hold for all that a few pages that are here take: the range at first, the read-ahead at last.
            let mut state = self.core.state.lock(cx);
            if at == start && end > state.end {
                return Err(Error::OutOfRange);
            }
            if at >= end {
                return Ok(());
            }
            // The device reads on while more than one page is copied.
            let ahead = !noted && at == start && end - start > PAGE as u64 && !broken::is(Hazard::RestNoted);
            if ahead && state.ready_slot(at / PAGE as u64).is_some() {
                noted = true;
                if state.note_read(start, end) {
                    drop(state);
                    self.core.drive(cx);
                    state = self.core.state.lock(cx);
                }
            }
            let hold = end.min((at / PAGE as u64 + RUN) * PAGE as u64);
            while at < hold {
                let (offset, done) = ((at % PAGE as u64) as usize, (at - start) as usize);
                let len = (PAGE - offset).min((end - at) as usize);
                if !state.try_read(found.take(), at / PAGE as u64, offset, &mut into[done..done + len]) {
                    break;
                }
                at += len as u64;
            }
            if at == hold {
                if at < end {
                    continue;
                }
                let planned = !noted && state.note_read(start, end);
                drop(state);
                if planned {
                    self.core.drive(cx);
                }
                return Ok(());
            }
            // All of what is read, not what is left of it, goes on where the last read ended.
            let first_time = !core::mem::replace(&mut noted, true) && !broken::is(Hazard::RestNoted);
            let plan = if first_time { state.plan_read(start, end) } else { None };
            drop(state);
            let (offset, done) = ((at % PAGE as u64) as usize, (at - start) as usize);
            let len = (PAGE - offset).min((end - at) as usize);
            let id = self.core.begin_waiting(cx, self.handle, Kind::Pin, at, end);
            if let Some(plan) = plan {
                self.core.state.lock(cx).read_ahead(plan);
                self.core.drive(cx);
            }
            let pinned = self.core.wait_until_over(cx, id)?.ok_or(Error::Busy)?;
            pinned.read(cx, offset, &mut into[done..done + len]);
            pinned.unpin(cx);
            at += len as u64;
        }
    }

    /// The hazard of a page that is found in one hold of the lock and used in another; long after, so that tests need not be lucky.
    fn found_before(&self, cx: &Task, index: u64) -> Option<u32> {
        if !broken::is(Hazard::FoundBefore) {
            return None;
        }
        let found = self.core.state.lock(cx).ready_slot(index);
        (0..100).for_each(|_| drop(self.core.state.lock(cx)));
        found
    }

    /// Writes bytes from `start` on.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::ReadOnly`], why a page could not be read first, or why there is no room for it. Pages before that are
    /// written.
    pub fn write_blocking(&self, cx: &Task, start: u64, from: &[u8]) -> Result<(), Error> {
        let end = self.range(cx, start, from.len())?;
        self.core.state.lock(cx).may_write()?;
        let mut at = start;
        while at < end {
            let (offset, done) = ((at % PAGE as u64) as usize, (at - start) as usize);
            let len = (PAGE - offset).min((end - at) as usize);
            let part = &from[done..done + len];
            let written = self.core.state.lock(cx).try_write(at / PAGE as u64, offset, part);
            if written {
                at += len as u64;
                continue;
            }
            // Without a pin there was room for it then: it is tried again.
            if let Some(pinned) = self.wait_for(cx, Kind::Ready, at, at + len as u64)? {
                let written = pinned.write(cx, offset, part);
                pinned.unpin(cx);
                written?;
                at += len as u64;
            }
        }
        self.core.drive(cx);
        Ok(())
    }

    /// As [`Volume::sync`], and waits.
    ///
    /// # Errors
    /// Why what it covers is not known to be durable.
    pub fn sync_blocking(&self, cx: &Task, range: Range<u64>) -> Result<(), Error> {
        let end = range.end.min(self.size(cx));
        self.wait_for(cx, Kind::Sync, range.start.min(end), end).map(drop)
    }

    /// As [`Volume::sync_all`], and waits.
    ///
    /// # Errors
    /// As [`Volume::sync_blocking`].
    pub fn sync_all_blocking(&self, cx: &Task) -> Result<(), Error> {
        self.sync_blocking(cx, 0..u64::MAX)
    }

    /// As [`Volume::invalidate`], and waits.
    ///
    /// # Errors
    /// [`Error::Busy`] at a pinned page.
    pub fn invalidate_blocking(&self, cx: &Task, range: Range<u64>) -> Result<(), Error> {
        let (start, end) = self.whole_pages(cx, range);
        self.wait_for(cx, Kind::Discard { device: false }, start, end).map(drop)
    }

    /// As [`Volume::pin`], and waits.
    ///
    /// # Errors
    /// Why the page could not be read, or [`Error::Busy`]: too many pins.
    pub fn pin_blocking(&self, cx: &Task, at: u64) -> Result<Pinned, Error> {
        self.range(cx, at, 1)?;
        self.wait_for(cx, Kind::Pin, at, at + 1)?.ok_or(Error::Busy)
    }

    /// Makes durable all that was written, and lets the volume go.
    ///
    /// # Errors
    /// Why that cannot be known; the handle is still good. [`Volume::invalidate`] is for an owner who gives up what was not written.
    pub fn close(self, cx: &Task) -> Result<(), (Self, Error)> {
        match self.sync_all_blocking(cx) {
            Ok(()) => Ok(()),
            Err(error) => Err((self, error)),
        }
    }

    pub(super) fn range(&self, cx: &Task, start: u64, len: usize) -> Result<u64, Error> {
        start.checked_add(len as u64).filter(|end| *end <= self.size(cx)).ok_or(Error::OutOfRange)
    }

    /// Begins an operation and waits until it is over: its pin.
    pub(super) fn wait_for(&self, cx: &Task, kind: Kind, start: u64, end: u64) -> Result<Option<Pinned>, Error> {
        let id = self.core.begin_waiting(cx, self.handle, kind, start, end);
        self.core.wait_until_over(cx, id)
    }
}

impl State {
    /// A valid page that nobody waits for: those who do are served first.
    #[inline]
    fn ready_slot(&self, index: u64) -> Option<u32> {
        self.table.find_ready(index).filter(|_| !self.stale && !self.is_fenced(index, NOBODY) && !self.is_aside(index))
    }

    /// Reads from a page, if that can be done at once.
    #[inline]
    fn try_read(&mut self, found: Option<u32>, index: u64, offset: usize, into: &mut [u8]) -> bool {
        let Some(slot) = found.or_else(|| self.ready_slot(index)) else { return false };
        into.copy_from_slice(&self.table.bytes(slot)[offset..offset + into.len()]);
        self.counts.hits += 1;
        self.touch(slot);
        true
    }

    /// Writes to a page, if that can be done at once.
    fn try_write(&mut self, index: u64, offset: usize, from: &[u8]) -> bool {
        if broken::is(Hazard::AlwaysAnOperation) {
            return false;
        }
        let over = self.back.is_over(&self.table);
        let slot = match self.table.find(index) {
            Some(_) => self.ready_slot(index).filter(|slot| self.table.state(*slot).is_dirty() || !over),
            None => {
                let covered = offset == 0 && from.len() >= self.bytes_of(index);
                let closed = self.is_fenced(index, NOBODY) || self.is_aside(index);
                let may = covered && !over && !closed && self.has_room(1);
                if may { self.table.take() } else { None }
            }
        };
        let Some(slot) = slot else { return false };
        let hit = self.table.state(slot) != PageState::Free;
        self.put(slot, index, offset, from.len(), |page| page.copy_from_slice(from));
        self.counts.hits += u64::from(hit);
        self.counts.misses += u64::from(!hit);
        if hit {
            self.touch(slot);
        }
        true
    }

    /// What is to be read ahead of a read.
    fn plan_read(&mut self, start: u64, end: u64) -> Option<Plan> {
        self.streams.note(start / PAGE as u64, (end - 1) / PAGE as u64, self.table.wasted)
    }

    /// Tells the read-ahead of a read that found all its pages: whether something is to be read.
    fn note_read(&mut self, start: u64, end: u64) -> bool {
        let plan = self.plan_read(start, end);
        if let Some(plan) = plan {
            self.read_ahead(plan);
        }
        plan.is_some()
    }
}
