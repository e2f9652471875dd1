//! The three rings: requests out, completions and messages in. Any context; one caller at a time, by the lock around them.
//!
//! # What is believed
//! Nothing. Where the next entry is, how much was published and how much was taken is kept in private memory; the shared page is written for
//! the device and read for its two producer indices only, each checked against what can be: no more completions than requests are in
//! flight, no more messages than the ring holds. How far the device is with the requests is asked only to save it a kick. A request's entry
//! is free again because its completion came, not because the device says so: there are as many entries as commands in flight, so that
//! no entry that an honest device has not read is ever written.
//!
//! Indices run freely through 2^32 and are compared by their difference only.

mod memory;

#[cfg(all(loom, test))]
#[path = "loom_tests.rs"]
mod loom_tests;
#[cfg(all(not(loom), test))]
mod tests;

pub(crate) use memory::{RingMemory, Shared};

use crate::registers::Kick;
use crate::wire::rings::{Completion, Message, Request};

/// The device published what cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breach {
    /// More completions than requests were in flight.
    Completions,
    /// More messages than the ring holds.
    Messages,
}

/// The rings in use.
#[derive(Debug)]
pub(crate) struct Rings<M> {
    memory: M,
    request_mask: u32,
    completion_mask: u32,
    messages: u32,
    /// Requests written, and of them published.
    written: u32,
    published: u32,
    /// Commands other than reads and writes of blocks are among those written and not published.
    other: bool,
    /// The device wants no kick below its threshold.
    threshold: bool,
    /// Completions taken, and those that were checked to be there.
    taken: u32,
    there: u32,
    /// Messages taken.
    heard: u32,
    /// Hazards that tests put back.
    #[cfg(test)]
    defects: crate::defect::Defects,
}

impl<M: RingMemory> Rings<M> {
    /// Rings with these many entries (powers of two) for requests, completions and messages. The memory is zero.
    pub(crate) fn new(memory: M, [requests, completions, messages]: [u32; 3]) -> Self {
        Self {
            memory,
            request_mask: requests - 1,
            completion_mask: completions - 1,
            messages,
            written: 0,
            published: 0,
            other: false,
            threshold: false,
            taken: 0,
            there: 0,
            heard: 0,
            #[cfg(test)]
            defects: crate::defect::Defects::none(),
        }
    }

    /// The memory.
    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    /// Starts anew; the memory is zero again.
    pub(crate) fn restart(&mut self) {
        (self.written, self.published, self.taken, self.there, self.heard) = (0, 0, 0, 0, 0);
        (self.other, self.threshold) = (false, false);
    }

    /// Whether the device wants no kick below its threshold.
    pub(crate) fn set_threshold(&mut self, on: bool) {
        self.threshold = on;
    }

    /// The same with hazards put back.
    #[cfg(test)]
    pub(crate) fn with_defects(self, defects: crate::defect::Defects) -> Self {
        Self { defects, ..self }
    }

    /// The same as if it had been in use for long.
    #[cfg(test)]
    #[cfg_attr(loom, allow(dead_code, reason = "the tests under loom begin at the beginning"))]
    pub(crate) fn age(&mut self, index: u32) {
        (self.written, self.published, self.taken, self.there, self.heard) = (index, index, index, index, index);
    }

    /// How many requests were written so far.
    #[cfg(test)]
    pub(crate) fn written(&self) -> u32 {
        self.written
    }

    /// Puts the next request where another may be: what a producer index read before the lock leads to.
    #[cfg(test)]
    pub(crate) fn rewind(&mut self, written: u32) {
        self.written = written;
    }

    /// Writes a request behind those written before. The caller has fewer in flight than there are entries.
    #[inline]
    pub(crate) fn write(&mut self, request: Request, reads_or_writes: bool) {
        self.memory.set_request(self.written & self.request_mask, request);
        self.written = self.written.wrapping_add(1);
        self.other |= !reads_or_writes;
    }

    /// Publishes what was written, and says how the device wants to be told.
    #[inline]
    #[must_use]
    pub(crate) fn publish(&mut self) -> Kick {
        if self.published == self.written {
            return Kick::None;
        }
        self.published = self.written;
        self.memory.publish_requests(self.written);
        if core::mem::take(&mut self.other) {
            return Kick::Other;
        }
        if self.threshold && self.is_below_threshold() { Kick::None } else { Kick::ReadWrite }
    }

    /// Whether the device comes for the requests by itself.
    fn is_below_threshold(&self) -> bool {
        #[cfg(test)]
        if self.defects.has(crate::defect::Defect::IgnoresThreshold) {
            return false;
        }
        // Publish, then look: of a device that rests and a driver that published, one sees the other.
        self.memory.full_fence();
        let (consumed, threshold) = self.memory.progress();
        self.published.wrapping_sub(consumed) < threshold
    }

    /// Takes the next completion; `in_flight` commands have none yet.
    ///
    /// # Errors
    /// [`Breach::Completions`].
    #[inline]
    pub(crate) fn completion(&mut self, in_flight: u32) -> Result<Option<Completion>, Breach> {
        if self.taken == self.there {
            let there = self.memory.completions();
            let fresh = there.wrapping_sub(self.taken);
            if fresh == 0 {
                return Ok(None);
            }
            if fresh > in_flight && !self.trusts_producer() {
                return Err(Breach::Completions);
            }
            self.there = there;
        }
        let completion = self.memory.completion(self.taken & self.completion_mask);
        self.taken = self.taken.wrapping_add(1);
        self.memory.take_completions(self.taken);
        Ok(Some(completion))
    }

    #[inline(always)]
    fn trusts_producer(&self) -> bool {
        #[cfg(test)]
        return self.defects.has(crate::defect::Defect::TrustsProducer);
        #[cfg(not(test))]
        false
    }

    /// Takes the next message.
    ///
    /// # Errors
    /// [`Breach::Messages`].
    pub(crate) fn message(&mut self) -> Result<Option<Message>, Breach> {
        let fresh = self.memory.messages().wrapping_sub(self.heard);
        if fresh == 0 {
            return Ok(None);
        }
        if fresh > self.messages && !self.trusts_producer() {
            return Err(Breach::Messages);
        }
        let message = self.memory.message(self.heard & (self.messages - 1));
        self.heard = self.heard.wrapping_add(1);
        #[cfg(test)]
        if self.defects.has(crate::defect::Defect::KeepsMessages) {
            return Ok(Some(message));
        }
        self.memory.take_messages(self.heard);
        Ok(Some(message))
    }
}
