//! Discards, truncation and invalidation: pages are forgotten, with what was not written of them.
//!
//! While one goes on, its range is fenced: whoever comes there waits. So no write can get between the pages and the device's own discard, and
//! no read can bring back what is being thrown away. A page in flight is waited for: its write-back must not reach the device after the discard.

use undercroft_block::{Error, Features};

use super::state::{State, Step};
use super::sync::batch;
use crate::broken::{self, Hazard};
use crate::op::{Kind, Phase};
use crate::state::PageState;
use crate::table::PAGE;

impl State {
    /// Whether a page is in the range of a discard other than `id`.
    pub(super) fn is_fenced(&self, index: u64, id: u16) -> bool {
        self.fences > 0 && !broken::is(Hazard::NoFence) && self.fence_between(index, index, id)
    }

    fn fence_between(&self, first: u64, last: u64, id: u16) -> bool {
        self.ops.all().any(|(other, op)| {
            let fence = matches!(op.kind, Kind::Discard { .. }) && op.phase != Phase::Begin && other != id;
            fence && op.start / PAGE as u64 <= last && first <= op.end.saturating_sub(1) / PAGE as u64
        })
    }

    /// Takes a discard's fence away, if it has one.
    pub(super) fn release_fence(&mut self, id: u16) {
        let op = self.ops.get(id);
        if matches!(op.kind, Kind::Discard { .. }) && op.phase != Phase::Begin {
            self.fences -= 1;
        }
    }

    /// A discard's range is of whole pages, the volume's last one possibly cut.
    pub(super) fn step_discard(&mut self, id: u16, device: bool) -> Step {
        let op = self.ops.get(id);
        if op.start >= op.end {
            return Step::Over(Ok(()));
        }
        let (first, last) = (op.start / PAGE as u64, (op.end - 1) / PAGE as u64);
        match op.phase {
            Phase::Begin => {
                if self.fences > 0 && self.fence_between(first, last, id) {
                    return self.stall(id);
                }
                self.fences += 1;
                let slots = self.table.pages.len() as u64;
                let op = self.ops.get_mut(id);
                op.phase = Phase::Scan;
                op.by_slot = last - first + 1 > slots;
                op.at = if op.by_slot { 0 } else { first };
                Step::Again
            }
            Phase::Scan => self.forget_some(id, device, first, last),
            Phase::Written | Phase::Device | Phase::Sent => Step::Wait,
        }
    }

    fn forget_some(&mut self, id: u16, device: bool, first: u64, last: u64) -> Step {
        let op = self.ops.get(id);
        let (by_slot, from) = (op.by_slot, op.at);
        let end = if by_slot { self.table.pages.len() as u64 } else { last + 1 };
        for at in from..end.min(from.saturating_add(batch())) {
            self.ops.get_mut(id).at = at;
            let slot = if by_slot { Some(at as u32) } else { self.table.find(at) };
            let Some(slot) = slot else { continue };
            let (state, page) = (self.table.state(slot), self.table.page(slot));
            let (index, since) = (page.index, page.since);
            if state == PageState::Free || !(first..=last).contains(&index) {
                continue;
            }
            if state == PageState::Reading || state.is_writing() && !broken::is(Hazard::DiscardOvertakes) {
                self.wait_for(id, slot);
                return Step::Wait;
            }
            if state.is_writing() {
                continue;
            }
            if self.table.pins(slot) > 0 || device && self.is_aside(index) {
                return self.discard_over(id, Err(Error::Busy));
            }
            self.table.change(slot, PageState::Free);
            if state.is_dirty() {
                self.attempted(index, slot, since, Ok(()));
            }
        }
        let op = self.ops.get_mut(id);
        op.at = end.min(from.saturating_add(batch()));
        if op.at < end {
            return Step::Again;
        }
        if !device || !self.features.contains(Features::DISCARD) || self.max_discard == 0 {
            return self.discard_over(id, Ok(()));
        }
        (op.phase, op.at) = (Phase::Device, op.start);
        Step::Wait
    }

    fn discard_over(&mut self, id: u16, result: Result<(), Error>) -> Step {
        self.release_fence(id);
        self.ops.get_mut(id).phase = Phase::Begin;
        self.retry_stalled();
        Step::Over(result)
    }

    /// The blocks that the device is to discard next for an operation: the first, and how many.
    pub(super) fn blocks_to_discard(&self, id: u16) -> (u64, u32) {
        let (op, size) = (self.ops.get(id), u64::from(self.block_size));
        let blocks = op.end.min(self.device_end).saturating_sub(op.at) / size;
        (op.at / size, blocks.min(u64::from(self.max_discard)) as u32)
    }

    /// The device has discarded something, or not.
    pub(super) fn discarded(&mut self, id: u16, result: Result<(), Error>) {
        if self.ops.get(id).phase != Phase::Sent {
            return;
        }
        let (_, blocks) = self.blocks_to_discard(id);
        let op = self.ops.get_mut(id);
        op.at += u64::from(blocks) * u64::from(self.block_size);
        if result.is_ok() && op.at < op.end.min(self.device_end) {
            op.phase = Phase::Device;
            return;
        }
        if let Step::Over(result) = self.discard_over(id, result) {
            self.finish(id, result);
        }
    }
}
