//! Adding a chain of buffers to the ring. Any context, under the owner's lock.

use super::memory::RingMemory;
use super::split::{RingError, Split, State};
use crate::defect::Defect;
use crate::wire::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor};

/// Why a chain could not be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddError {
    /// No room now.
    Full,
    /// It will never fit, has no buffer, or not as many as announced, or a writable one before a readable one.
    BadChain,
    /// The device broke the ring's contract before.
    Broken(RingError),
}

/// One buffer of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Device address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// The device writes it (else reads). Readable buffers come first (2.7.4.2).
    pub writable: bool,
}

/// A chain being written. Dropping it unfinished leaves the ring as it was.
#[derive(Debug)]
#[must_use = "a chain goes to the device with finish"]
pub struct Chain<'a, M> {
    ring: &'a mut Split<M>,
    head: u16,
    /// The descriptor to write next, of a direct chain.
    at: u16,
    done: u16,
    count: u16,
    indirect: bool,
    writable: u32,
    extra: u32,
    ordered: bool,
}

impl<'a, M: RingMemory> Chain<'a, M> {
    #[inline]
    pub(super) const fn new(ring: &'a mut Split<M>, head: u16, count: u16, indirect: bool) -> Self {
        Self { ring, head, at: head, done: 0, count, indirect, writable: 0, extra: 0, ordered: true }
    }

    /// Names the chain while it is in flight: an index below the ring's size.
    pub const fn head(&self) -> u16 {
        self.head
    }

    /// Adds a buffer.
    #[inline]
    pub fn push(&mut self, buffer: Buffer) {
        if self.done >= self.count {
            self.ordered = false;
            return;
        }
        self.done += 1;
        self.ordered &= buffer.writable || self.writable == 0;
        let mut flags = if self.done < self.count { DESC_NEXT } else { 0 };
        if buffer.writable {
            flags |= DESC_WRITE;
            self.writable = self.writable.saturating_add(buffer.len);
        }
        let (addr, len, flags) = (buffer.addr.into(), buffer.len.into(), flags.into());
        if self.indirect {
            let next = self.done.into();
            self.ring.memory.set_indirect(self.head, self.done - 1, Descriptor { addr, len, flags, next });
        } else {
            let next = self.ring.shadow[usize::from(self.at)].next;
            self.ring.memory.set_descriptor(self.at, Descriptor { addr, len, flags, next: next.into() });
            self.at = next;
        }
    }

    /// Allows the device to count `bytes` that it read as if it had written them. QEMU's virtio-scsi does that with the data of a write,
    /// against 2.7.8.2; what [`Split::pop`] reports stays at most what it can have written.
    #[inline]
    pub fn counts_readable(&mut self, bytes: u32) {
        self.extra = self.extra.saturating_add(bytes);
    }

    /// Makes the chain part of the next [`Split::publish`] and returns its head.
    ///
    /// # Errors
    /// [`AddError::BadChain`] when there are not as many buffers as announced, or in the wrong order; the ring is as it was.
    #[inline]
    pub fn finish(self) -> Result<u16, AddError> {
        let Self { ring, head, done, count, indirect, writable, extra, ordered, .. } = self;
        if done != count || !ordered {
            return Err(AddError::BadChain);
        }
        let taken = if indirect {
            let (addr, len) = (ring.memory.table_addr(head).into(), (16 * u32::from(count)).into());
            let descriptor = Descriptor { addr, len, flags: DESC_INDIRECT.into(), next: 0.into() };
            ring.memory.set_descriptor(head, descriptor);
            1
        } else {
            count
        };
        Ok(ring.give(head, taken, writable, extra))
    }
}

impl<M: RingMemory> Split<M> {
    /// Adds a chain of `N` buffers at once: what nearly every request is. It gets the name that [`Split::next_head`] has told. `extra`: see
    /// [`Chain::counts_readable`].
    ///
    /// # Errors
    /// [`AddError`]; the ring is as it was.
    #[inline(always)]
    pub fn add<const N: usize>(&mut self, buffers: [Buffer; N], extra: u32) -> Result<u16, AddError> {
        if N < 2 || N > usize::from(self.memory.table_len()) {
            return self.add_singly(buffers, extra);
        }
        if self.free == 0 || self.broken.is_some() {
            return Err(self.broken.map_or(AddError::Full, AddError::Broken));
        }
        let head = self.free_head;
        let (mut words, mut writable, mut ordered) = ([[0; 2]; N], 0u32, true);
        for (nth, buffer) in buffers.iter().enumerate() {
            ordered &= buffer.writable || writable == 0;
            let next = if nth + 1 < N { DESC_NEXT } else { 0 };
            let flags = if buffer.writable { next | DESC_WRITE } else { next };
            writable = writable.saturating_add(if buffer.writable { buffer.len } else { 0 });
            words[nth] = Descriptor::words(buffer.addr, buffer.len, flags, nth as u16 + 1);
        }
        if !ordered {
            return Err(AddError::BadChain);
        }
        self.memory.set_table(head, words);
        self.memory.set_words(head, Descriptor::words(self.memory.table_addr(head), 16 * N as u32, DESC_INDIRECT, 0));
        Ok(self.give(head, 1, writable, extra))
    }

    #[cold]
    fn add_singly<const N: usize>(&mut self, buffers: [Buffer; N], extra: u32) -> Result<u16, AddError> {
        let mut chain = self.chain(N as u16)?;
        buffers.into_iter().for_each(|buffer| chain.push(buffer));
        chain.counts_readable(extra);
        chain.finish()
    }

    /// Makes a chain that is written the next available one: `taken` descriptors from the free list's first on. Returns its name.
    #[inline(always)]
    fn give(&mut self, head: u16, taken: u16, writable: u32, extra: u32) -> u16 {
        let mut at = head;
        for _ in 0..taken {
            let shadow = &mut self.shadow[usize::from(at)];
            shadow.state = State::Body;
            at = shadow.next;
        }
        self.free_head = at;
        self.free -= taken;
        let at = self.next_available;
        let shadow = &mut self.shadow[usize::from(head)];
        shadow.state = State::Head;
        shadow.at = at;
        shadow.writable = writable;
        shadow.claimable = writable.saturating_add(extra);
        if !self.defects.has(Defect::StaleChainLength) || shadow.count == 0 {
            shadow.count = taken;
        }
        self.memory.set_available(at & self.mask, head);
        self.next_available = at.wrapping_add(1);
        self.in_flight += 1;
        head
    }
}
