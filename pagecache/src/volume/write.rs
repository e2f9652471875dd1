//! Writes: into pages, which are read first where a write covers a part of what the device has of them.

use undercroft_block::{Data, Error};

use super::state::{Found, State, Step};
use crate::broken::{self, Hazard};
use crate::copy::Cursor;
use crate::state::PageState;
use crate::table::PAGE;

impl State {
    pub(super) fn step_write(&mut self, id: u16) -> Step {
        let op = self.ops.get(id);
        let (at, end) = (op.at, op.end);
        if let Some(error) = self.dead {
            return Step::Over(Err(error));
        }
        if at >= end {
            return Step::Over(Ok(()));
        }
        let (index, offset) = (at / PAGE as u64, (at % PAGE as u64) as usize);
        let len = (PAGE - offset).min((end - at) as usize);
        let slot = match self.writable(id, index, offset, len) {
            Ok(slot) => slot,
            Err(step) => return step,
        };
        let op = self.ops.get_mut(id);
        let (mut cursor, data) = (op.cursor, core::mem::replace(&mut op.data, Data::None));
        self.put(slot, index, offset, len, |page| cursor.copy_in(&data, page));
        self.has_written(id, cursor, data);
        if broken::is(Hazard::OnePageTooMany) && end.is_multiple_of(PAGE as u64) && at + len as u64 == end {
            let slot = self.table.take().filter(|_| self.table.find(index + 1).is_none());
            slot.into_iter().for_each(|slot| self.table.enter(slot, index + 1, PageState::Dirty));
        }
        self.went_on(id, len)
    }

    fn has_written(&mut self, id: u16, cursor: Cursor, data: Data) {
        let op = self.ops.get_mut(id);
        (op.cursor, op.data) = (cursor, data);
    }

    /// The slot of a page that `len` bytes from `offset` on can be written to: it is valid, or free and wholly covered. Else what the operation
    /// does instead.
    pub(super) fn writable(&mut self, id: u16, index: u64, offset: usize, len: usize) -> Result<u32, Step> {
        if self.is_aside(index) {
            return Err(Step::Over(Err(Error::Busy)));
        }
        if self.is_fenced(index, id) {
            return Err(self.stall(id));
        }
        match self.approach(id, index) {
            Found::Waits => Err(Step::Wait),
            Found::Here(slot) => {
                if !self.table.state(slot).is_dirty() && self.back.is_over(&self.table) {
                    self.counts.throttled += 1;
                    return Err(self.stall_for_write_back(id));
                }
                self.used(slot, id);
                Ok(slot)
            }
            Found::Absent => {
                if self.back.is_over(&self.table) {
                    self.counts.throttled += 1;
                    return Err(self.stall_for_write_back(id));
                }
                let covered = offset == 0 && len >= self.bytes_of(index) || broken::is(Hazard::NotReadFirst);
                if !covered {
                    return Err(self.bring_in(id, index));
                }
                self.counts.misses += 1;
                if !self.has_room(1) {
                    return Err(self.stall(id));
                }
                self.table.take().ok_or_else(|| self.stall_for_write_back(id))
            }
        }
    }

    /// Changes a page that is [writable](State::writable).
    pub(crate) fn put(&mut self, slot: u32, index: u64, offset: usize, len: usize, fill: impl FnOnce(&mut [u8])) {
        match self.table.state(slot) {
            PageState::Free => {
                self.table.enter(slot, index, PageState::Dirty);
                let page = self.table.bytes_mut(slot);
                page[..offset].fill(0);
                page[offset + len..].fill(0);
                self.touch(slot);
            }
            _ => self.table.changes(slot),
        }
        fill(&mut self.table.bytes_mut(slot)[offset..offset + len]);
    }

    /// Waits until a page can be written by the caller itself: its range is within one page.
    pub(super) fn step_ready(&mut self, id: u16) -> Step {
        if let Some(error) = self.dead {
            return Step::Over(Err(error));
        }
        let op = self.ops.get(id);
        let (index, offset) = (op.start / PAGE as u64, (op.start % PAGE as u64) as usize);
        match self.writable(id, index, offset, (op.end - op.start) as usize) {
            Ok(slot) if self.table.state(slot) == PageState::Free => Step::Over(Ok(())),
            Ok(slot) => self.pin_for(id, slot),
            Err(step) => step,
        }
    }

    /// Ends an operation with its page pinned.
    pub(super) fn pin_for(&mut self, id: u16, slot: u32) -> Step {
        let Some(pin) = self.pins.iter().position(|pinned| *pinned == crate::table::NONE) else {
            return Step::Over(Err(Error::Busy));
        };
        if !self.table.pin(slot) {
            return Step::Over(Err(Error::Busy));
        }
        self.pins[pin] = slot;
        self.ops.get_mut(id).pin = pin as u16;
        Step::Over(Ok(()))
    }

    pub(super) fn step_pin(&mut self, id: u16) -> Step {
        if self.stale {
            return Step::Over(Err(Error::NotReady));
        }
        let index = self.ops.get(id).start / PAGE as u64;
        if self.is_aside(index) {
            return Step::Over(Err(Error::Busy));
        }
        if self.is_fenced(index, id) {
            return self.stall(id);
        }
        let plan = self.note(id);
        let step = match self.approach(id, index) {
            Found::Waits => {
                self.counts.misses += 1;
                Step::Wait
            }
            Found::Here(slot) => {
                self.used(slot, id);
                self.pin_for(id, slot)
            }
            Found::Absent if broken::is(Hazard::PinnedUnread) => {
                self.fetch_all(index, index, false);
                match self.table.find(index) {
                    Some(slot) => self.pin_for(id, slot),
                    None => self.stall(id),
                }
            }
            Found::Absent => self.bring_in(id, index),
        };
        if let Some(plan) = plan {
            self.read_ahead(plan);
        }
        step
    }

    /// The page of a pin is mapped for writing.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub(crate) fn map_pin(&mut self, pin: usize) -> Result<(), Error> {
        self.may_write()?;
        let slot = self.pins[pin];
        if slot != crate::table::NONE && !core::mem::replace(&mut self.mapped[pin], true) {
            self.table.map(slot);
        }
        Ok(())
    }

    /// Undoes the pin of [`State::pin_for`], and its mapping.
    pub(super) fn unpin(&mut self, pin: usize) {
        let slot = core::mem::replace(&mut self.pins[pin], crate::table::NONE);
        let mapped = core::mem::take(&mut self.mapped[pin]);
        if mapped && !broken::is(Hazard::MappedTakenForClean) {
            self.table.unmap(slot);
        }
        if slot != crate::table::NONE && !broken::is(Hazard::PinLost) {
            self.table.unpin(slot);
            self.retry_stalled();
        }
    }
}
