//! Adding a chain of buffers to a packed ring. Any context, under the owner's lock.

use super::chain::{AddError, Buffer};
use super::packed::Packed;
use super::packed_memory::PackedMemory;
use crate::wire::ring::packed::PackedDescriptor;
use crate::wire::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE};

/// A chain being written. Dropping it unfinished leaves the ring as it was: flags, which hand descriptors over, are written at the end.
#[derive(Debug)]
#[must_use = "a chain goes to the device with finish"]
pub struct PackedChain<'a, M> {
    ring: &'a mut Packed<M>,
    id: u16,
    done: u16,
    count: u16,
    indirect: bool,
    /// Buffers that the device reads: they come first.
    readable: u16,
    writable: u32,
    extra: u32,
    ordered: bool,
}

impl<'a, M: PackedMemory> PackedChain<'a, M> {
    #[inline]
    pub(super) const fn new(ring: &'a mut Packed<M>, id: u16, count: u16, indirect: bool) -> Self {
        Self { ring, id, done: 0, count, indirect, readable: 0, writable: 0, extra: 0, ordered: true }
    }

    /// Names the chain while it is in flight: an id below the ring's size.
    pub const fn head(&self) -> u16 {
        self.id
    }

    /// Adds all buffers, as [`super::Split::add`] has them.
    ///
    /// # Errors
    /// As [`PackedChain::finish`].
    #[inline(never)]
    pub(super) fn add<const N: usize>(mut self, buffers: [Buffer; N], extra: u32) -> Result<u16, AddError> {
        buffers.into_iter().for_each(|buffer| self.push(buffer));
        self.counts_readable(extra);
        self.finish()
    }

    /// Adds a buffer.
    #[inline]
    pub fn push(&mut self, buffer: Buffer) {
        if self.done >= self.count {
            self.ordered = false;
            return;
        }
        if buffer.writable {
            self.writable = self.writable.saturating_add(buffer.len);
        } else {
            self.ordered &= self.readable == self.done;
            self.readable += 1;
        }
        if self.indirect {
            let flags = if buffer.writable { DESC_WRITE } else { 0 };
            let descriptor = PackedDescriptor {
                addr: buffer.addr.into(),
                len: buffer.len.into(),
                id: 0.into(),
                flags: flags.into(),
            };
            self.ring.memory.set_indirect(self.id, self.done, descriptor);
        } else {
            let place = self.ring.next_available.further(self.done, self.ring.size);
            self.ring.memory.set_descriptor(place.index, buffer.addr, buffer.len, self.id);
        }
        self.done += 1;
    }

    /// Allows the device to count `bytes` that it read as if it had written them; see [`super::Chain::counts_readable`].
    #[inline]
    pub const fn counts_readable(&mut self, bytes: u32) {
        self.extra = self.extra.saturating_add(bytes);
    }

    /// Makes the chain part of the next [`Packed::publish`] and returns its id.
    ///
    /// # Errors
    /// [`AddError::BadChain`] when there are not as many buffers as announced, or in the wrong order; the ring is as it was.
    #[inline]
    pub fn finish(self) -> Result<u16, AddError> {
        let Self { ring, id, done, count, indirect, readable, writable, extra, ordered } = self;
        if done != count || !ordered {
            return Err(AddError::BadChain);
        }
        let taken = if indirect {
            let (addr, len) = (ring.memory.table_addr(id), 16 * u32::from(count));
            ring.memory.set_descriptor(ring.next_available.index, addr, len, id);
            1
        } else {
            count
        };
        // Back to front, so that the first is the last, and is held back if it is the first of its batch.
        for nth in (0..taken).rev() {
            let place = ring.next_available.further(nth, ring.size);
            let kind = match (indirect, nth >= readable) {
                (true, _) => DESC_INDIRECT,
                (false, true) => DESC_WRITE,
                (false, false) => 0,
            };
            let next = if nth + 1 < taken { DESC_NEXT } else { 0 };
            let flags = kind | next | place.available();
            if nth == 0 && ring.held.is_none() {
                ring.held = Some((place.index, flags));
            } else {
                ring.memory.set_flags(place.index, flags);
            }
        }
        let shadow = &mut ring.shadow[usize::from(id)];
        ring.free_id = shadow.next;
        (shadow.in_flight, shadow.count, shadow.at) = (true, taken, ring.made);
        (shadow.writable, shadow.claimable) = (writable, writable.saturating_add(extra));
        ring.next_available = ring.next_available.further(taken, ring.size);
        ring.free -= taken;
        ring.unpublished += taken;
        ring.made = ring.made.wrapping_add(1);
        ring.in_flight += 1;
        Ok(id)
    }
}
