//! Requests to the device: sent with no lock held, and taken back.

use alloc::sync::Arc;

use undercroft_block::{Complete, Completion, Data, Error, Op, Piece, Refusal, Rejected, Request};
use undercroft_hal::BottomHalf;
use undercroft_hal::context::NotHardIrq;
use undercroft_hal::dma::DmaBuf;

use super::core::Core;
use super::state::State;
use crate::io::{Io, Stage, What};
use crate::op::{Kind, Phase};
use crate::table::PAGE;

/// What is to be done next with no lock held.
enum Job {
    Grow,
    Send(What, Request, u64),
    Nothing,
}

impl Core {
    pub(super) fn send_all(&self, cx: &impl NotHardIrq) {
        let Some(this) = self.this.upgrade() else { return };
        let mut sent = false;
        loop {
            let job = self.state.lock(cx).next_job(&this);
            match job {
                Job::Nothing => break,
                Job::Grow => self.grow(cx),
                Job::Send(what, request, room) => match self.device.submit(request) {
                    Ok(_) => sent = true,
                    Err(Rejected { request, why: Refusal::Full }) => self.state.lock(cx).refused(what, request, room),
                    Err(Rejected { request, why: Refusal::Invalid(error) | Refusal::Gone(error) }) => {
                        self.came_back(cx, what, request, Err(error));
                    }
                },
            }
        }
        if sent {
            self.device.commit();
        }
    }

    /// A request is over, or was never taken.
    fn came_back(&self, cx: &impl NotHardIrq, what: What, request: Request, result: Result<(), Error>) {
        match what {
            What::Read(at) => {
                let (data, blank) = request.retire();
                let mut state = self.state.lock(cx);
                state.blanks.push(blank);
                let foreign = state.regain(at, data);
                let count = state.reads[at].count as usize;
                for page in 0..count {
                    // Who waited may have had a page copied, or several: then others have their turn.
                    if state.filled(at, page, result) {
                        drop(state);
                        state = self.state.lock(cx);
                    }
                }
                state.counts.reads += 1;
                state.counts.pages_read += if result.is_ok() { count as u64 } else { 0 };
                state.counts.read_errors += u64::from(result.is_err());
                state.reads[at].stage = Stage::Idle;
                state.full = false;
                state.retry_stalled();
                drop(state);
                // Freed with no lock held.
                drop(foreign);
            }
            What::Write(at) => {
                let (buf, count) = {
                    let mut state = self.state.lock(cx);
                    (state.recycle(request), state.writes[at].count)
                };
                for page in 0..count as usize {
                    self.state.lock(cx).wrote(at, page, result);
                }
                let mut state = self.state.lock(cx);
                state.counts.writes += 1;
                state.counts.pages_written += if result.is_ok() { u64::from(count) } else { 0 };
                (state.writes[at].stage, state.writes[at].buf) = (Stage::Idle, buf);
                state.full = false;
                state.write_ended(result);
            }
            What::Flush => {
                let mut state = self.state.lock(cx);
                state.recycle(request);
                state.full = false;
                state.flushed(result);
            }
            What::Discard(id) => {
                let mut state = self.state.lock(cx);
                state.recycle(request);
                state.full = false;
                state.discarded(id, result);
            }
        }
    }
}

impl Complete for Core {
    fn complete(&self, cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        if let Some(what) = What::of(cookie) {
            self.came_back(cx, what, request, result);
            self.drive(cx);
        }
    }
}

impl State {
    fn next_job(&mut self, core: &Arc<Core>) -> Job {
        if self.wants > 0 {
            return Job::Grow;
        }
        if self.full {
            return Job::Nothing;
        }
        let queued = |ios: &[Io]| ios.iter().position(|io| io.stage == Stage::Queued);
        let (what, op) = if let Some(at) = queued(&self.reads) {
            (What::Read(at), Op::Read)
        } else if let Some(at) = queued(&self.writes) {
            (What::Write(at), Op::Write)
        } else if self.flush.queued {
            (What::Flush, Op::Flush)
        } else if let Some(id) = self.next_discard() {
            (What::Discard(id), Op::Discard)
        } else if self.begin_write() {
            return self.next_job(core);
        } else {
            return Job::Nothing;
        };
        // As many as there can be requests: there is one.
        let Some(blank) = self.blanks.pop() else { return Job::Nothing };
        let (lba, blocks, data) = match what {
            What::Read(at) => {
                let data = core::mem::take(&mut self.reads[at].data);
                let (lba, blocks) = Self::range(&mut self.reads[at], self.device_end, self.block_size);
                (lba, blocks, data)
            }
            What::Write(at) => {
                let (lba, blocks) = Self::range(&mut self.writes[at], self.device_end, self.block_size);
                let len = (blocks * self.block_size) as usize;
                let data = self.writes[at].buf.take().map_or(Data::None, |buf| Data::One(Piece::new(buf, 0, len)));
                (lba, blocks, data)
            }
            What::Flush => {
                (self.flush.queued, self.flush.at_device) = (false, true);
                (0, 0, Data::None)
            }
            What::Discard(id) => {
                self.ops.get_mut(id).phase = Phase::Sent;
                let (lba, blocks) = self.blocks_to_discard(id);
                (lba, blocks, Data::None)
            }
        };
        let completion = Completion::new(Arc::clone(core) as Arc<dyn Complete>, what.cookie());
        Job::Send(what, blank.fill(op, lba, blocks, data, completion), self.room)
    }

    /// The buffer of a request that is over; what is left of it makes another.
    fn recycle(&mut self, request: Request) -> Option<DmaBuf> {
        let (data, blank) = request.retire();
        self.blanks.push(blank);
        data.into_buf().ok()
    }

    /// The range of a transfer, which is about to be sent: blocks.
    fn range(io: &mut Io, device_end: u64, block_size: u32) -> (u64, u32) {
        io.stage = Stage::Sent;
        let start = io.first * PAGE as u64;
        let len = (u64::from(io.count) * PAGE as u64).min(device_end.saturating_sub(start));
        (start / u64::from(block_size), (len / u64::from(block_size)) as u32)
    }

    fn next_discard(&self) -> Option<u16> {
        if self.fences == 0 {
            return None;
        }
        let waits = |kind, phase| matches!(kind, Kind::Discard { .. }) && phase == Phase::Device;
        self.ops.all().find_map(|(id, op)| waits(op.kind, op.phase).then_some(id))
    }

    /// The device had no room for a request, which is to be sent again when it has; `room` is what it had said of that when it was sent.
    fn refused(&mut self, what: What, request: Request, room: u64) {
        match what {
            What::Read(at) => {
                let (data, blank) = request.retire();
                self.blanks.push(blank);
                (self.reads[at].stage, self.reads[at].data) = (Stage::Queued, data);
            }
            What::Write(at) => {
                (self.writes[at].stage, self.writes[at].buf) = (Stage::Queued, self.recycle(request));
            }
            What::Flush => {
                self.recycle(request);
                (self.flush.queued, self.flush.at_device) = (true, false);
            }
            What::Discard(id) => {
                self.recycle(request);
                self.ops.get_mut(id).phase = Phase::Device;
            }
        }
        // Room that came between its answer and here would not come again.
        self.full = self.room == room;
    }
}
