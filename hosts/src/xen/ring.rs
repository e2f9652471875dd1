//! A ring of a disk's, from the side that answers.

use std::collections::{BTreeSet, VecDeque};

use super::breach::{Breach, Log};
use super::consts::{PAGE, blkif};
use super::fault::Fault;
use super::memory;
use super::request::Request;
use crate::Bus;

/// A request that was taken and is not answered.
#[derive(Debug)]
pub(super) struct Taken {
    pub request: Request,
    pub faults: Vec<Fault>,
    pub due: u64,
    /// Waits for so many others, but not for ever.
    pub behind: u32,
    pub patience: u64,
    pub never: bool,
}

/// A response that waits to be sent.
#[derive(Debug)]
pub(super) struct Reply {
    pub id: u64,
    pub operation: u8,
    pub status: i16,
    pub quiet: bool,
    pub late: Option<u64>,
    pub jump: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Ring {
    /// Addresses of its pages, and their references.
    pages: Vec<u64>,
    pub references: Vec<u32>,
    pub port: u32,
    entries: u32,
    /// Behind the last request taken.
    consumed: u32,
    /// Behind the last response put in.
    produced: u32,
    /// What the host last wrote to its other field, and where requests were seen to end.
    event: u32,
    seen: u32,
    /// Notified since it last looked.
    pub kicked: bool,
    pub taken: Vec<Taken>,
    pub replies: VecDeque<Reply>,
    /// Pages of data that stay mapped.
    pub kept: BTreeSet<u32>,
    /// Broken by the guest, or by a fault: nothing happens here any more.
    pub dead: bool,
    pub last_id: u64,
}

impl Ring {
    /// A ring whose pages are mapped. It begins where its indices are.
    pub fn attach(bus: &Bus<'_>, pages: Vec<u64>, references: Vec<u32>, port: u32) -> Result<Self, Breach> {
        let entries = (pages.len() * PAGE as usize - blkif::HEADER) / blkif::SLOT;
        let mut this = Self {
            pages,
            references,
            port,
            entries: 1 << entries.ilog2(),
            consumed: 0,
            produced: 0,
            event: 0,
            seen: 0,
            // What was put in before it was there.
            kicked: true,
            taken: Vec::new(),
            replies: VecDeque::new(),
            kept: BTreeSet::new(),
            dead: false,
            last_id: 0,
        };
        this.produced = this.word(bus, blkif::RSP_PROD)?;
        this.consumed = this.produced;
        this.seen = this.produced;
        this.event = this.word(bus, blkif::REQ_EVENT)?;
        let there = this.word(bus, blkif::REQ_PROD)?.wrapping_sub(this.produced);
        if there > this.entries {
            return Err(Breach::Rings("indices that cannot be"));
        }
        Ok(this)
    }

    fn address(&self, offset: usize) -> u64 {
        self.pages[offset / PAGE as usize] + (offset % PAGE as usize) as u64
    }

    fn word(&self, bus: &Bus<'_>, offset: usize) -> Result<u32, Breach> {
        Ok(memory::load(bus, self.address(offset))?)
    }

    fn set_word(&self, bus: &Bus<'_>, offset: usize, value: u32) -> Result<(), Breach> {
        Ok(memory::store(bus, self.address(offset), value)?)
    }

    fn slot(&self, index: u32) -> usize {
        blkif::HEADER + (index & (self.entries - 1)) as usize * blkif::SLOT
    }

    /// Whether the guest has kept its hands off the host's fields.
    fn check(&self, bus: &Bus<'_>) -> Result<(), Breach> {
        if self.word(bus, blkif::RSP_PROD)? != self.produced {
            return Err(Breach::HostsField("a ring's rsp_prod"));
        }
        if self.word(bus, blkif::REQ_EVENT)? != self.event {
            return Err(Breach::HostsField("a ring's req_event"));
        }
        Ok(())
    }

    /// Whether a notification now tells something.
    pub fn has_news(&mut self, bus: &Bus<'_>) -> bool {
        let produced = self.word(bus, blkif::REQ_PROD).unwrap_or(self.seen);
        let is_news = produced != self.seen && !self.kicked;
        self.seen = produced;
        is_news
    }

    /// The next request, as far as the guest has notified of it: its bytes.
    pub fn take(&mut self, bus: &Bus<'_>) -> Result<Option<[u8; blkif::SLOT]>, Breach> {
        if !self.kicked || self.dead {
            return Ok(None);
        }
        self.check(bus)?;
        let produced = self.word(bus, blkif::REQ_PROD)?;
        // Neither what waits nor what is unanswered may be written over.
        if produced.wrapping_sub(self.produced) > self.entries {
            return Err(Breach::RingOverrun(produced));
        }
        self.seen = produced;
        if produced == self.consumed {
            self.event = self.consumed.wrapping_add(1);
            self.set_word(bus, blkif::REQ_EVENT, self.event)?;
            // What came before that was seen is not notified.
            self.kicked = self.word(bus, blkif::REQ_PROD)? != self.consumed;
            return if self.kicked { self.take(bus) } else { Ok(None) };
        }
        let mut bytes = [0; blkif::SLOT];
        let from = self.slot(self.consumed);
        for (offset, byte) in (from..).zip(&mut bytes) {
            memory::read(bus, self.address(offset), std::slice::from_mut(byte))?;
        }
        self.consumed = self.consumed.wrapping_add(1);
        Ok(Some(bytes))
    }

    /// Puts all replies in, and publishes them. Returns whether there were any, and whether to notify, when.
    pub fn flush(&mut self, bus: &Bus<'_>) -> Result<(u64, Option<Option<u64>>), Breach> {
        if self.dead || self.replies.is_empty() {
            return Ok((0, None));
        }
        self.check(bus)?;
        let old = self.produced;
        let (mut sent, mut quiet, mut late) = (0, false, None);
        while let Some(reply) = self.replies.pop_front() {
            let at = self.slot(self.produced);
            let mut bytes = [0; 16];
            memory::put(&mut bytes, 0, &reply.id.to_le_bytes());
            memory::put(&mut bytes, 8, &[reply.operation]);
            memory::put(&mut bytes, 10, &reply.status.to_le_bytes());
            for (offset, byte) in (at..).zip(bytes) {
                memory::write(bus, self.address(offset), &[byte])?;
            }
            self.produced = self.produced.wrapping_add(1);
            quiet |= reply.quiet;
            late = late.max(reply.late);
            sent += 1;
            if let Some(jump) = reply.jump {
                self.produced = self.produced.wrapping_add(jump);
                self.dead = true;
                break;
            }
        }
        self.set_word(bus, blkif::RSP_PROD, self.produced)?;
        let wanted = self.word(bus, blkif::RSP_EVENT)?;
        let is_due = self.produced.wrapping_sub(wanted) < self.produced.wrapping_sub(old) || self.dead;
        let when = late.map(|nanos| bus.now() + nanos);
        Ok((sent, (is_due && !quiet).then_some(when)))
    }

    /// A breach after which nothing happens here any more.
    pub fn kill(&mut self, breach: Breach, log: &mut Log) {
        self.dead = true;
        log.breach(breach);
    }
}
