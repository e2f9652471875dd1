//! Requests that wait one behind the other and continue one another go to the device as one.
//!
//! Only those next in line, so that nothing overtakes; with one piece of data each, whose list is one of a pool made with the queue; none that is
//! to be durable, and no more than the device takes. The first of them leads: its slot is the device's, its deadline the first. What fails
//! together is sent again one by one, so that an error is only its own request's.

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use undercroft_hal::Instant;

use super::broken::{self, Hazard};
use super::job::{Job, Place, Stage};
use super::state::State;
use crate::{Data, Error, Info, Op, Piece, Request, Tag};

/// Requests that go together at most.
pub(super) const MOST: usize = 8;
/// Merged requests at the device at most; further ones go as they are.
const LISTS: u32 = 32;

/// Those that go with the one that leads.
pub(super) type Members = ArrayVec<Tag, { MOST - 1 }>;
/// Lists for the data of merged requests.
pub(super) type Lists = Vec<Vec<Piece>>;

pub(super) fn lists(depth: u32) -> Lists {
    (0..depth.min(LISTS)).map(|_| Vec::with_capacity(MOST)).collect()
}

impl Job {
    fn may_merge(&self) -> bool {
        matches!(self.op, Op::Read | Op::Write)
            && self.stage == Stage::Transfer
            && self.done == 0
            && !(self.fua || self.emulate || self.alone || self.cancelled)
    }
}

fn is_whole(request: &Request, info: &Info) -> bool {
    matches!(&request.data, Data::One(piece) if piece.len() as u64 == u64::from(request.blocks) * u64::from(info.block_size))
}

impl State {
    /// Lets what is next in its line go with a request that is about to be sent.
    pub(super) fn merge(&mut self, tag: Tag, request: &mut Request, info: &Info) {
        let Some(job) = self.jobs.get(tag) else { return };
        if !job.may_merge() || !is_whole(request, info) {
            return;
        }
        let (from, op, deadline) = (usize::from(job.from), job.op, job.deadline);
        let mut members = Members::new();
        while !members.is_full() {
            let Some(next) = self.waiting.get(from).and_then(|line| line.front()).copied() else { break };
            let end = request.lba.saturating_add(u64::from(request.blocks));
            if !self.joins(next, op, end, deadline, info) || !self.add(next, request, info) {
                break;
            }
            if let Some(line) = self.waiting.get_mut(from) {
                line.pop_front();
            }
            self.waits -= 1;
            members.push(next);
        }
        if members.is_empty() {
            return;
        }
        self.stats.merged += members.len() as u64;
        for member in &members {
            if let Some(job) = self.jobs.get_mut(*member) {
                job.place = Place::Merged;
            }
        }
        if let (Some(job), Some(kept)) = (self.jobs.get_mut(tag), self.kept.get_mut(usize::from(tag.index()))) {
            // Not the request's own: so it is not taken for one that went straight through.
            job.part = request.blocks;
            kept.members = members;
        }
    }

    fn joins(&self, next: Tag, op: Op, end: u64, deadline: Instant, info: &Info) -> bool {
        let Some(job) = self.jobs.get(next) else { return false };
        let Some(flight) = self.kept.get(usize::from(next.index())).and_then(|kept| kept.flight.as_ref()) else {
            return false;
        };
        let follows = job.lba == end || broken::is(Hazard::MergesGaps) && job.lba > end;
        job.may_merge() && job.op == op && follows && job.deadline >= deadline && is_whole(flight.request(), info)
    }

    /// Adds a request's piece and blocks to another's. `false`, with nothing changed, if the device does not take that much.
    fn add(&mut self, next: Tag, request: &mut Request, info: &Info) -> bool {
        let Some(flight) = self.kept.get_mut(usize::from(next.index())).and_then(|kept| kept.flight.as_mut()) else {
            return false;
        };
        let more = flight.request().blocks;
        let Some(blocks) = request.blocks.checked_add(more) else { return false };
        if matches!(request.data, Data::One(_)) {
            let Some(mut list) = self.lists.pop() else { return false };
            if let Data::One(first) = core::mem::take(&mut request.data) {
                list.push(first);
            }
            request.data = Data::List(list);
        }
        let Data::List(list) = &mut request.data else { return false };
        if let Data::One(piece) = core::mem::take(flight.data_mut()) {
            list.push(piece);
        }
        let before = core::mem::replace(&mut request.blocks, blocks);
        if request.check(info).is_ok() {
            return true;
        }
        request.blocks = before;
        if let Data::List(list) = &mut request.data {
            *flight.data_mut() = list.pop().map_or(Data::None, Data::One);
            if list.len() == 1 {
                let mut list = core::mem::take(list);
                request.data = list.pop().map_or(Data::None, Data::One);
                self.lists.push(list);
            }
        }
        false
    }

    /// Gives everybody their data back. Returned are those that went with the one that leads: none, if it went by itself.
    pub(super) fn unmerge(&mut self, tag: Tag, request: &mut Request) -> Members {
        let Some(kept) = self.kept.get_mut(usize::from(tag.index())) else { return Members::new() };
        if kept.members.is_empty() {
            return Members::new();
        }
        let members = core::mem::take(&mut kept.members);
        if let Data::List(mut list) = core::mem::take(&mut request.data) {
            let mut pieces = list.drain(..);
            request.data = pieces.next().map_or(Data::None, Data::One);
            for (member, piece) in members.iter().zip(pieces) {
                if let Some(flight) =
                    self.kept.get_mut(usize::from(member.index())).and_then(|kept| kept.flight.as_mut())
                {
                    *flight.data_mut() = Data::One(piece);
                }
            }
            self.lists.push(list);
        }
        if let Some(job) = self.jobs.get_mut(tag) {
            job.part = job.blocks;
            request.blocks = job.blocks;
        }
        members
    }

    /// What became of those that went along.
    pub(super) fn settle(&mut self, members: &Members, result: Result<(), Error>) {
        let mut again = Members::new();
        for member in members {
            let Some(job) = self.jobs.get_mut(*member) else { continue };
            let end = match (result, self.dead) {
                (Ok(()), _) => Ok(()),
                (Err(_), Some(dead)) => Err(dead),
                (Err(_), None) if job.cancelled => Err(Error::Cancelled),
                (Err(error), None) => {
                    (job.alone, job.last) = (true, Some(error));
                    again.push(*member);
                    continue;
                }
            };
            if let Some(flight) = self.take_kept(*member) {
                self.end_later(*member, flight, end);
            }
        }
        self.return_all(&again);
    }

    /// Those that went along are first in line again, in their order.
    pub(super) fn return_all(&mut self, members: &Members) {
        for member in members.iter().rev() {
            if let Some(job) = self.jobs.get_mut(*member) {
                job.place = Place::Waiting;
                self.line_up(*member, true);
            }
        }
    }
}
