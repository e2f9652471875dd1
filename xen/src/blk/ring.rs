//! A ring of requests and responses in shared pages, from the side that asks (`public/io/ring.h`). Any context, one caller at a time.
//!
//! Indices run freely over 2^32; an entry is an index modulo the ring's size, a power of two. Our own indices are kept here: what the other end could
//! write over is never read back.

use core::ops::Deref;
use core::sync::atomic::{Ordering, fence};

use undercroft_hal::dma::Coherent;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::wire::{ENTRY, Response, ring};
use crate::defect::{self, Defect};

#[cfg(test)]
std::thread_local! {
    /// Where the indices of new rings begin.
    pub(crate) static START: core::cell::Cell<u32> = const { core::cell::Cell::new(0) };
}

/// The other end produced more responses than requests are out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyResponses;

/// Its pages are whatever holds them.
pub(crate) struct Ring<M> {
    memory: M,
    entries: u32,
    /// Behind the last request put in, and behind the last one shown.
    produced: u32,
    published: u32,
    /// Behind the last response taken.
    consumed: u32,
}

impl<M: Deref<Target = Coherent>> Ring<M> {
    /// An empty ring in whole, zeroed pages.
    pub(crate) fn new(memory: M) -> Self {
        let room = (memory.len() - ring::ENTRIES) / ENTRY;
        let entries = 1 << room.ilog2();
        memory.atomic_u32(ring::REQUEST_EVENT).store(1, Ordering::Relaxed);
        memory.atomic_u32(ring::RESPONSE_EVENT).store(1, Ordering::Relaxed);
        let this = Self { memory, entries, produced: 0, published: 0, consumed: 0 };
        #[cfg(test)]
        let this = this.begin_at(START.get());
        this
    }

    /// Empties the ring, for another end that knows nothing of the one before.
    pub(crate) fn restart(&mut self) {
        (self.produced, self.published, self.consumed) = (0, 0, 0);
        for index in [ring::REQUESTS_PRODUCED, ring::RESPONSES_PRODUCED] {
            self.memory.atomic_u32(index).store(0, Ordering::Relaxed);
        }
        for event in [ring::REQUEST_EVENT, ring::RESPONSE_EVENT] {
            self.memory.atomic_u32(event).store(1, Ordering::Relaxed);
        }
    }

    /// As [`Ring::restart`], in other memory of the same size. Returns what it was in.
    pub(crate) fn replace(&mut self, memory: M) -> M {
        let before = core::mem::replace(&mut self.memory, memory);
        self.restart();
        before
    }

    /// Its memory.
    pub(crate) fn memory(&self) -> &M {
        &self.memory
    }

    /// The index of the next request that is put in.
    pub(crate) fn next(&self) -> u32 {
        self.produced
    }

    /// Whether the request that was put in at `index`, and is not answered, was shown to the other end.
    pub(crate) fn is_shown(&self, index: u32) -> bool {
        self.published.wrapping_sub(index).cast_signed() > 0
    }

    /// A ring that has been used for long: for tests of the indices' end.
    #[cfg(test)]
    pub(crate) fn begin_at(mut self, at: u32) -> Self {
        (self.produced, self.published, self.consumed) = (at, at, at);
        for index in [ring::REQUESTS_PRODUCED, ring::RESPONSES_PRODUCED] {
            self.memory.atomic_u32(index).store(at, Ordering::Relaxed);
        }
        for event in [ring::REQUEST_EVENT, ring::RESPONSE_EVENT] {
            self.memory.atomic_u32(event).store(at.wrapping_add(1), Ordering::Relaxed);
        }
        self
    }

    /// Requests that the ring takes in all.
    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// Requests that it takes now.
    pub(crate) fn free(&self) -> u32 {
        self.entries - self.produced.wrapping_sub(self.consumed)
    }

    fn entry(&self, index: u32) -> usize {
        ring::ENTRIES + (index & (self.entries - 1)) as usize * ENTRY
    }

    /// Puts a request in, which the other end does not see yet. There must be room.
    pub(crate) fn put<T: IntoBytes + Immutable>(&mut self, request: T) {
        debug_assert!(self.free() > 0 && size_of::<T>() <= ENTRY);
        self.memory.write(self.entry(self.produced), request);
        self.produced = self.produced.wrapping_add(1);
    }

    /// Shows the other end all that was put in. Returns whether it is to be notified.
    #[must_use]
    pub(crate) fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.produced);
        if old == new {
            return false;
        }
        self.memory.atomic_u32(ring::REQUESTS_PRODUCED).store(new, Ordering::Release);
        self.published = new;
        // The other end says which request it wants to hear of, then looks at the index once more: one of us sees the other.
        fence(Ordering::SeqCst);
        let event = self.memory.atomic_u32(ring::REQUEST_EVENT).load(Ordering::Relaxed);
        new.wrapping_sub(event) < new.wrapping_sub(old)
    }

    /// Takes the next response. `None`: there is none.
    ///
    /// # Errors
    /// [`TooManyResponses`].
    pub(crate) fn take(&mut self) -> Result<Option<Response>, TooManyResponses> {
        let produced = self.memory.atomic_u32(ring::RESPONSES_PRODUCED).load(Ordering::Acquire);
        let there = produced.wrapping_sub(self.consumed);
        if there > self.published.wrapping_sub(self.consumed) {
            return Err(TooManyResponses);
        }
        if there == 0 || defect::is(Defect::PlainIndices) && produced < self.consumed {
            return Ok(None);
        }
        let response = read(&self.memory, self.entry(self.consumed));
        self.consumed = self.consumed.wrapping_add(1);
        Ok(Some(response))
    }

    /// Asks to be told of the next response. Returns whether there is one already, which nobody will tell of.
    pub(crate) fn arm(&self) -> bool {
        self.memory.atomic_u32(ring::RESPONSE_EVENT).store(self.consumed.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let produced = self.memory.atomic_u32(ring::RESPONSES_PRODUCED).load(Ordering::Acquire);
        produced != self.consumed && !(defect::is(Defect::PlainIndices) && produced < self.consumed)
    }
}

fn read<T: FromBytes>(memory: &Coherent, offset: usize) -> T {
    memory.read(offset)
}
