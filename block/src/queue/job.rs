//! One accepted request, from `submit` to its completion. The request itself is in one place at a time: here while it waits, with the device
//! while a part of it is under way, with its submitter at the end.

use alloc::sync::Arc;

use undercroft_hal::Instant;

use super::merge::Members;
use crate::broken::{self, Hazard};
use crate::data::Edges;
use crate::request::Parent;
use crate::{Blank, Complete, Data, Error, InFlight, Op, Request, Tag};

/// What is being done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its own operation.
    Transfer,
    /// The flush that makes a written request durable, on a device without force unit access.
    Flush,
}

/// Where the request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In line: it is in [`Kept::flight`].
    Waiting,
    /// With the device, or on its way there.
    Device,
    /// With the device, as a part of another request, which leads: without its data it is in [`Kept::flight`].
    Merged,
    /// Done, with a result that a bottom half delivers: it is in [`Kept::flight`].
    Ended(Result<(), Error>),
    /// With a device that was given up: the submitter has its completion, the buffers are freed when the device gives them back.
    Orphan,
}

/// What a slot keeps of a request that does not go straight through. Apart from the [`Job`], which every request makes and moves.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The request, unless the device has it.
    pub flight: Option<InFlight>,
    /// What its data showed before it was cut.
    pub edges: Option<Edges>,
    /// The written data, while the flush is under way.
    pub stash: Option<Data>,
    /// The requests that go with this one.
    pub members: Members,
    /// What the submitter's completion is told with if the device is given up with its request.
    pub shell: Option<Blank>,
}

#[derive(Debug)]
pub(super) struct Job {
    pub parent: Option<Parent>,
    pub from: u8,
    pub stage: Stage,
    /// Durable on completion, by a flush of ours.
    pub emulate: bool,
    /// Its deadline passed with the request at the device.
    pub victim: bool,
    /// Its submitter wants it to end.
    pub cancelled: bool,
    /// How often it was sent again after a reset.
    pub resent: u8,
    /// It failed together with others: next it goes by itself.
    pub alone: bool,
    /// The request as it came.
    pub op: Op,
    pub fua: bool,
    pub lba: u64,
    pub blocks: u32,
    /// Blocks done, and blocks of the part under way.
    pub done: u32,
    pub part: u32,
    pub deadline: Instant,
    /// Why it was put off last.
    pub last: Option<Error>,
    pub place: Place,
}

impl Job {
    /// Before it is a request's.
    pub const NONE: Self = Self {
        parent: None,
        from: 0,
        stage: Stage::Transfer,
        emulate: false,
        victim: false,
        cancelled: false,
        resent: 0,
        alone: false,
        op: Op::Flush,
        fua: false,
        lba: 0,
        blocks: 0,
        done: 0,
        part: 0,
        deadline: Instant::from_nanos(0),
        last: None,
        place: Place::Device,
    };

    /// Makes it the job of a request, which from now on comes back to `sink` with `tag`.
    #[inline(always)]
    pub fn begin(
        &mut self,
        from: u8,
        request: &mut Request,
        (sink, tag): (Arc<dyn Complete>, Tag),
        deadline: Instant,
        emulate: bool,
    ) {
        // Every field: what is here is another request's.
        let parent = Some(request.take_over(sink, tag.to_bits()));
        let Self { op, fua, lba, blocks, part, done, .. } = self;
        (*op, *fua, *lba) = (request.op, request.fua, request.lba);
        (*blocks, *part, *done) = (request.blocks, request.blocks, 0);
        (self.from, self.deadline, self.emulate, self.parent) = (from, deadline, emulate, parent);
        (self.stage, self.victim, self.cancelled, self.resent) = (Stage::Transfer, false, false, 0);
        (self.alone, self.last, self.place) = (false, None, Place::Device);
    }

    /// Makes the request the next thing to send: `part` blocks, or the flush. `false`: there are no such bytes.
    pub fn shape(&mut self, kept: &mut Kept, request: &mut Request, part: u32, block_size: u32) -> bool {
        if self.stage == Stage::Flush {
            kept.stash = Some(core::mem::take(&mut request.data));
            (request.op, request.lba, request.blocks, request.fua) = (Op::Flush, 0, 0, false);
            return true;
        }
        self.part = part;
        if self.emulate {
            request.fua = false;
        }
        if part < self.blocks {
            request.lba = self.lba + u64::from(self.done);
            if broken::is(Hazard::CutsBlocks) {
                request.lba &= u64::from(u32::MAX);
            }
            request.blocks = part;
            if matches!(self.op, Op::Read | Op::Write) {
                let size = block_size as usize;
                kept.edges = request.data.narrow(self.done as usize * size, part as usize * size);
                return kept.edges.is_some();
            }
        }
        true
    }

    /// Makes the request what it was when it came.
    pub fn unshape(&self, kept: &mut Kept, request: &mut Request) {
        if let Some(edges) = kept.edges.take() {
            request.data.widen(edges);
        }
        if let Some(data) = kept.stash.take() {
            request.data = data;
        }
        (request.op, request.lba, request.blocks, request.fua) = (self.op, self.lba, self.blocks, self.fua);
    }

    /// Whether doing it twice is the same as doing it once, also when others were done between: nothing that it depends on is lost by a
    /// reset.
    pub fn is_safe_again(&self) -> bool {
        // What a flush was to make durable may have been lost: it failed.
        self.op != Op::Flush && self.stage != Stage::Flush
    }

    pub const fn is_at_device(&self) -> bool {
        matches!(self.place, Place::Device)
    }

    /// Whether the device has all of it as it came, in time: when it is done there, it is done.
    #[inline]
    pub const fn is_straight(&self) -> bool {
        self.is_at_device() && self.part == self.blocks && !self.emulate && !self.victim
    }
}
