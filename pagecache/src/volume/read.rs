//! Reads: from pages that are here, else from the device first.

use alloc::vec::Vec;
use core::ops::Range;

use undercroft_block::{Data, Error, Piece};
use undercroft_hal::dma::DmaBuf;

use super::state::{Found, State, Step};
use crate::ahead::Plan;
use crate::broken::{self, Hazard};
use crate::io::{Io, Stage};
use crate::line::NOBODY;
use crate::op::Kind;
use crate::state::PageState;
use crate::table::PAGE;

impl State {
    pub(super) fn step_read(&mut self, id: u16) -> Step {
        let op = self.ops.get(id);
        let (at, end) = (op.at, op.end);
        if at >= end {
            return Step::Over(Ok(()));
        }
        if self.stale {
            return Step::Over(Err(Error::NotReady));
        }
        let (index, offset) = (at / PAGE as u64, (at % PAGE as u64) as usize);
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
                let len = (PAGE - offset).min((end - at) as usize);
                let op = self.ops.get_mut(id);
                op.cursor.copy_out(&mut op.data, &self.table.bytes(slot)[offset..offset + len]);
                self.went_on(id, len)
            }
            Found::Absent => self.bring_in(id, index),
        };
        if let Some(plan) = plan {
            self.read_ahead(plan);
        }
        step
    }

    /// An operation has done its part of a page.
    pub(super) fn went_on(&mut self, id: u16, len: usize) -> Step {
        let op = self.ops.get_mut(id);
        op.at += len as u64;
        (op.waited, op.alone) = (false, false);
        if op.at >= op.end { Step::Over(Ok(())) } else { Step::Again }
    }

    /// Tells the read-ahead of an operation, once.
    pub(super) fn note(&mut self, id: u16) -> Option<Plan> {
        let op = self.ops.get_mut(id);
        if core::mem::replace(&mut op.noted, true) {
            return None;
        }
        let (first, last) = (op.start / PAGE as u64, op.end.saturating_sub(1) / PAGE as u64);
        self.streams.note(first, last, self.table.wasted)
    }

    /// A page that was here is used by an operation.
    pub(super) fn used(&mut self, slot: u32, id: u16) {
        self.counts.hits += u64::from(!self.ops.get(id).waited);
        self.touch(slot);
    }

    /// A page is used.
    pub(super) fn touch(&mut self, slot: u32) {
        self.counts.ahead_used += u64::from(self.table.touch(slot));
    }

    /// Begins to read what an operation needs, and has it wait for the first page of that.
    pub(super) fn bring_in(&mut self, id: u16, index: u64) -> Step {
        let op = self.ops.get(id);
        let last = if op.alone || matches!(op.kind, Kind::Write | Kind::Ready) {
            index
        } else {
            op.end.saturating_sub(1) / PAGE as u64
        };
        self.counts.misses += 1;
        self.fetch_all(index, last, false);
        match self.table.find(index) {
            Some(slot) => {
                self.wait_for(id, slot);
                Step::Wait
            }
            // Without a page it is for write-back to make some; without a transfer, or with memory to come, it is not.
            None if self.wants == 0 && self.reads.iter().any(Io::is_free) => self.stall_for_write_back(id),
            None => self.stall(id),
        }
    }

    /// Reads the pages of a range that are not here, as far as there is room.
    pub(super) fn fetch_all(&mut self, first: u64, last: u64, ahead: bool) {
        let mut index = first;
        while index <= last {
            if self.table.find(index).is_some() {
                index += 1;
                continue;
            }
            match self.fetch(index, last - index + 1, ahead) {
                0 => return,
                read => index += u64::from(read),
            }
        }
    }

    /// Begins to read a run of absent pages from `first` on, at most `most`: how many it will be.
    fn fetch(&mut self, first: u64, most: u64, ahead: bool) -> u32 {
        let pages = self.device_end.div_ceil(PAGE as u64);
        let mut free = self.reads.iter().enumerate().filter(|(_, io)| io.is_free()).map(|(at, _)| at);
        // The last transfer is for those that wait.
        let (Some(at), false) = (free.next(), ahead && free.next().is_none()) else { return 0 };
        let room = self.reads[at].pages.len() as u64;
        let most = most.min(room).min(pages.saturating_sub(first)) as u32;
        if most == 0 || !self.has_room(most) {
            return 0;
        }
        let Some(mut list) = self.reads[at].list.take() else { return 0 };
        let (mut count, mut run) = (0, 0..0);
        while count < most {
            let index = first + u64::from(count);
            if self.table.find(index).is_some() || self.is_fenced(index, NOBODY) || self.is_aside(index) {
                break;
            }
            let Some(slot) = self.table.take() else { break };
            if run.is_empty() {
                run = slot..slot + 1;
            } else if self.table.follows(&run, slot, self.reach) {
                run.end += 1;
            } else if list.len() + 1 < self.pieces {
                self.lend(&mut list, core::mem::replace(&mut run, slot..slot + 1), PAGE);
            } else {
                break;
            }
            self.table.enter(slot, index, PageState::Reading);
            self.table.page_mut(slot).ahead = ahead;
            self.reads[at].pages[count as usize] = (slot, 0);
            count += 1;
        }
        if count > 0 {
            self.lend(&mut list, run, self.bytes_of(first + u64::from(count) - 1));
            let io = &mut self.reads[at];
            (io.stage, io.first, io.count) = (Stage::Queued, first, count);
            (io.data, io.list) = match list.len() {
                1 => (list.pop().map_or(Data::None, Data::One), Some(list)),
                _ => (Data::List(list), None),
            };
            self.counts.ahead += if ahead { u64::from(count) } else { 0 };
        } else {
            self.reads[at].list = Some(list);
        }
        count
    }

    /// Adds the memory of a run of pages to a read's pieces; of the last page so many bytes.
    fn lend(&mut self, list: &mut Vec<Piece>, run: Range<u32>, last: usize) {
        let len = (run.end - run.start) as usize * PAGE - (PAGE - last);
        // Without it the request is too short for its range, and refused.
        if let Some(buf) = self.table.lend(run) {
            list.push(Piece::new(buf, 0, len));
        }
    }

    /// Takes a read's data back: the memory of its pages. What is not of those is returned.
    pub(super) fn regain(&mut self, io: usize, data: Data) -> Option<DmaBuf> {
        let (mut page, mut foreign) = (0, None);
        let pages = self.reads[io].count as usize;
        let mut back = |piece: Piece| {
            let Some(&(slot, _)) = self.reads[io].pages[..pages].get(page) else { return };
            page += piece.len().div_ceil(PAGE);
            let buf = self.table.take_back(slot, piece.into_buf());
            foreign = foreign.take().or(buf);
        };
        match data {
            Data::One(piece) => back(piece),
            Data::List(mut list) => {
                list.drain(..).for_each(back);
                self.reads[io].list = Some(list);
            }
            Data::None | Data::Window(_) => self.reads[io].lost = true,
        }
        foreign
    }

    pub(super) fn read_ahead(&mut self, plan: Plan) {
        let wanted = self.wants;
        self.read_plan(plan);
        // If it asked for memory, it is gone through again when that has come.
        if self.wants > wanted {
            self.plan = Some(plan);
        }
    }

    fn read_plan(&mut self, plan: Plan) {
        match plan {
            Plan::Run { first, count } => {
                let last = self.end.saturating_sub(1) / PAGE as u64;
                if first <= last {
                    self.fetch_all(first, last.min(first.saturating_add(u64::from(count).max(1) - 1)), true);
                }
            }
            Plan::Strides { first, stride, count, pages } => {
                for step in 0..i64::from(count) {
                    let Some(at) = first.checked_add_signed(stride * step) else { return };
                    if at.saturating_mul(PAGE as u64) < self.end {
                        self.fetch_all(
                            at,
                            (at + u64::from(pages) - 1).min(self.end.saturating_sub(1) / PAGE as u64),
                            true,
                        );
                    }
                }
            }
        }
    }

    /// Page `at` of a read has come, or not. Whether it had those who waited for it go on.
    pub(super) fn filled(&mut self, io: usize, at: usize, result: Result<(), Error>) -> bool {
        let (io, alone) = (&self.reads[io], self.reads[io].count == 1);
        let ((slot, _), index) = (io.pages[at], io.first + at as u64);
        // Without its memory nothing was read, whatever the device says.
        let result = if self.table.is_lent(slot) { result.and(Err(Error::Broken)) } else { result };
        let waits = !self.table.page(slot).waiters.is_empty();
        match result {
            Ok(()) => {
                let len = self.bytes_of(index);
                // What the device does not have reads as zeroes, whatever was in this memory (pattern 25).
                if len < PAGE && !broken::is(Hazard::StaleTail) {
                    self.table.bytes_mut(slot)[len..].fill(0);
                }
                self.table.change(slot, PageState::Clean);
                if waits {
                    self.wake(slot);
                }
            }
            Err(error) => {
                let mut line = self.table.take_line(slot);
                if broken::is(Hazard::FailedReadStays) {
                    self.table.change(slot, PageState::Clean);
                } else {
                    self.table.change(slot, PageState::Free);
                }
                while let Some(id) = self.ops.pop(&mut line) {
                    let op = self.ops.get_mut(id);
                    if matches!(op.kind, Kind::Discard { .. }) || !alone {
                        // Perhaps another page of the run failed: each that somebody waits for is read alone.
                        op.alone = true;
                        self.ops.push(&mut self.runnable, id);
                    } else if !broken::is(Hazard::ForgottenReader) || op.kind != Kind::Write {
                        self.finish(id, Err(error));
                    }
                }
            }
        }
        waits
    }
}
