//! One accepted request, from `submit` to its completion. The request itself is in one place at a time: here while it waits, with the device
//! while a part of it is under way, with its submitter at the end.

use undercroft_hal::Instant;

use crate::data::Edges;
use crate::request::Parent;
use crate::{Data, Error, InFlight, Op, Request, Tag};

/// What is being done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its own operation.
    Transfer,
    /// The flush that makes a written request durable, on a device without force unit access.
    Flush,
}

/// Where the request is.
#[derive(Debug)]
pub(super) enum Place {
    /// In line, or about to be.
    Waiting(InFlight),
    /// Given to the device, which has not answered with a tag yet.
    Sending,
    /// With the device.
    Device(Tag),
    /// Done, with a result that a bottom half delivers.
    Ended(InFlight, Result<(), Error>),
    /// With a device that was given up: the submitter has its completion, the buffers are freed when the device gives them back.
    Orphan,
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
    /// The request as it came.
    pub op: Op,
    pub fua: bool,
    pub lba: u64,
    pub blocks: u32,
    /// Blocks done, and blocks of the part under way.
    pub done: u32,
    pub part: u32,
    pub edges: Option<Edges>,
    pub deadline: Instant,
    /// Why it was put off last.
    pub last: Option<Error>,
    /// The written data, while the flush is under way.
    pub stash: Option<Data>,
    pub place: Place,
}

impl Job {
    pub fn new(from: u8, request: &Request, parent: Parent, deadline: Instant, emulate: bool, place: Place) -> Self {
        Self {
            parent: Some(parent),
            from,
            stage: Stage::Transfer,
            emulate,
            victim: false,
            cancelled: false,
            resent: 0,
            op: request.op,
            fua: request.fua,
            lba: request.lba,
            blocks: request.blocks,
            done: 0,
            part: request.blocks,
            edges: None,
            deadline,
            last: None,
            stash: None,
            place,
        }
    }

    /// Makes the request the next thing to send: `part` blocks, or the flush. `false`: there are no such bytes.
    pub fn shape(&mut self, request: &mut Request, part: u32, block_size: u32) -> bool {
        if self.stage == Stage::Flush {
            self.stash = Some(core::mem::take(&mut request.data));
            (request.op, request.lba, request.blocks, request.fua) = (Op::Flush, 0, 0, false);
            return true;
        }
        self.part = part;
        if self.emulate {
            request.fua = false;
        }
        if part < self.blocks {
            request.lba = self.lba + u64::from(self.done);
            request.blocks = part;
            if matches!(self.op, Op::Read | Op::Write) {
                let size = block_size as usize;
                self.edges = request.data.narrow(self.done as usize * size, part as usize * size);
                return self.edges.is_some();
            }
        }
        true
    }

    /// Makes the request what it was when it came.
    pub fn unshape(&mut self, request: &mut Request) {
        if let Some(edges) = self.edges.take() {
            request.data.widen(edges);
        }
        if let Some(data) = self.stash.take() {
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
        matches!(self.place, Place::Sending | Place::Device(_))
    }
}
