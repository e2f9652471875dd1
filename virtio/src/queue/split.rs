//! The ring's algorithm. Any context, under the owner's lock.

use alloc::boxed::Box;
use core::fmt;

use super::chain::{AddError, Chain};
use super::event::need_event;
use super::memory::RingMemory;
use crate::defect::{Defect, Defects};
use crate::wire::ring::{AVAIL_NO_INTERRUPT, MAX_SIZE, USED_NO_NOTIFY};

/// How the device broke the ring's contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingError {
    /// It returned an id beyond the ring.
    IdOutOfRange(u32),
    /// It returned a chain that is not in flight: never given, or returned before.
    NotInFlight(u16),
    /// It returned a descriptor from the middle of a chain.
    NotHead(u16),
    /// Its index says that it used more chains than are in flight.
    IndexJump(u16),
    /// It says that it wrote more bytes than it was given to write.
    TooLong(u32),
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IdOutOfRange(id) => write!(f, "the device returned descriptor {id}, beyond the ring"),
            Self::NotInFlight(id) => write!(f, "the device returned descriptor {id}, which it does not have"),
            Self::NotHead(id) => write!(f, "the device returned descriptor {id}, the middle of a chain"),
            Self::IndexJump(by) => write!(f, "the device used {by} chains, more than it has"),
            Self::TooLong(len) => write!(f, "the device wrote {len} bytes, more than it was given"),
        }
    }
}

/// A chain that the device returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// The chain, as [`Chain::finish`] named it.
    pub head: u16,
    /// Bytes that the device says it wrote; at most the chain's writable bytes.
    pub len: u32,
}

/// What is known of a descriptor, in private memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Head,
    Body,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Shadow {
    /// The next free descriptor, or the next of the chain. In 0..size, or anything at the end of the free list.
    pub(super) next: u16,
    /// Descriptors of the chain, for a head.
    pub(super) count: u16,
    /// The available index that it was added at, for a head.
    pub(super) at: u16,
    pub(super) state: State,
    /// Bytes that the device may write, for a head.
    pub(super) writable: u32,
    /// Bytes that it may say it wrote, for a head: see [`Chain::counts_readable`].
    pub(super) claimable: u32,
}

impl Shadow {
    /// A free descriptor, in a list of all of them.
    const fn free(index: u16, size: u16) -> Self {
        Self { next: (index + 1) & (size - 1), count: 0, at: 0, state: State::Free, writable: 0, claimable: 0 }
    }
}

/// A split virtqueue over memory `M`.
#[derive(Debug)]
pub struct Split<M> {
    pub(super) memory: M,
    pub(super) size: u16,
    pub(super) mask: u16,
    pub(super) event_idx: bool,
    pub(super) shadow: Box<[Shadow]>,
    /// First free descriptor; meaningful while `free > 0`.
    pub(super) free_head: u16,
    pub(super) free: u16,
    /// Available index including chains that the device was not told of yet.
    pub(super) next_available: u16,
    /// Available index that the device was told.
    pub(super) published: u16,
    /// Next used entry to look at.
    pub(super) next_used: u16,
    /// Used index as last read, validated: at most `in_flight` ahead of `next_used`.
    pub(super) used_seen: u16,
    pub(super) in_flight: u16,
    /// Chains returned in all, wrapping.
    pub(super) returned: u32,
    pub(super) broken: Option<RingError>,
    pub(super) defects: Defects,
}

impl<M: RingMemory> Split<M> {
    /// A ring of `size` descriptors (a power of two, at most 32,768) over zeroed memory; `None` for another size.
    pub fn new(memory: M, size: u16, event_idx: bool) -> Option<Self> {
        if !size.is_power_of_two() || size > MAX_SIZE {
            return None;
        }
        let shadow = (0..size).map(|index| Shadow::free(index, size));
        Some(Self {
            memory,
            size,
            mask: size - 1,
            event_idx,
            shadow: shadow.collect(),
            free_head: 0,
            free: size,
            next_available: 0,
            published: 0,
            next_used: 0,
            used_seen: 0,
            in_flight: 0,
            returned: 0,
            broken: None,
            defects: Defects::default(),
        })
    }

    /// The shared memory.
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// Descriptors of the ring.
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// Chains that the device has, told of or not.
    pub const fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Free descriptors.
    pub const fn free(&self) -> u16 {
        self.free
    }

    /// How the device broke the contract, if it did.
    pub const fn broken(&self) -> Option<RingError> {
        self.broken
    }

    /// Chains that came back in all, wrapping.
    pub const fn returned(&self) -> u32 {
        self.returned
    }

    /// Whether the device was told of the chain in flight: if not, it has not touched it.
    pub fn was_told(&self, head: u16) -> bool {
        let since = |index: u16| index.wrapping_sub(self.published);
        self.shadow.get(usize::from(head)).is_none_or(|shadow| since(shadow.at) >= since(self.next_available))
    }

    /// Makes the ring as it was at first, memory and all, with nothing in flight. The device does not use it: it was reset.
    pub fn restart(&mut self) {
        if !self.defects.has(Defect::KeepsMemory) {
            self.memory.clear();
        }
        for (index, shadow) in (0..).zip(&mut self.shadow) {
            *shadow = Shadow::free(index, self.size);
        }
        (self.free_head, self.free, self.in_flight) = (0, self.size, 0);
        (self.next_available, self.published, self.next_used, self.used_seen) = (0, 0, 0, 0);
        self.broken = None;
    }

    /// Begins a chain of exactly `count` buffers. Nothing changes until [`Chain::finish`].
    ///
    /// # Errors
    /// [`AddError`].
    #[inline]
    pub fn chain(&mut self, count: u16) -> Result<Chain<'_, M>, AddError> {
        if let Some(error) = self.broken {
            return Err(AddError::Broken(error));
        }
        let indirect = count > 1 && count <= self.memory.table_len();
        let needed = if indirect { 1 } else { count };
        if count == 0 || needed > self.size {
            return Err(AddError::BadChain);
        }
        if needed > self.free {
            return Err(AddError::Full);
        }
        let head = self.free_head;
        Ok(Chain::new(self, head, count, indirect))
    }

    /// The name of the next chain, if there is one: below the ring's size.
    #[inline]
    pub const fn next_head(&self) -> u16 {
        self.free_head & self.mask
    }

    /// Tells the device of the chains added since the last time. `true` if it wants a kick for them, which the caller then owes it.
    #[must_use = "a device that asked for a kick waits for it"]
    #[inline]
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next_available);
        if old == new || self.broken.is_some() {
            return false;
        }
        self.memory.publish(new);
        self.published = new;
        // The store of the index above must be visible before the load below: a device that goes to sleep stores the index
        // at which it wants a kick, fences, and looks at our index once more. Without both fences each side may read what the other had
        // before, and both wait: the device for the kick, the driver for the answer (2.7.13.4.1).
        self.memory.full_fence();
        if self.event_idx {
            let event = self.memory.available_event();
            if self.defects.has(Defect::PlainWindow) { new > event } else { need_event(event, new, old) }
        } else {
            self.memory.used_flags() & USED_NO_NOTIFY == 0
        }
    }

    /// Takes the next chain that the device returned.
    ///
    /// # Errors
    /// [`RingError`], now and for ever after, when the device broke the contract.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Used>, RingError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        if self.next_used == self.used_seen {
            // Acquire: the elements up to this index, and what the device wrote into the buffers, are read after it.
            let index = self.memory.used_index();
            let news = index.wrapping_sub(self.next_used);
            if news == 0 {
                return Ok(None);
            }
            if news > self.in_flight && !self.defects.has(Defect::TrustsUsedIndex) {
                return Err(self.fail(RingError::IndexJump(news)));
            }
            self.used_seen = index;
        }
        // Read once, into private memory; validated there.
        let element = self.memory.used(self.next_used & self.mask);
        let (id, len) = (element.id.get(), element.len.get());
        let Some(&shadow) = self.shadow.get(id as usize) else {
            return Err(self.fail(RingError::IdOutOfRange(id)));
        };
        let head = id as u16;
        if !self.defects.has(Defect::TrustsUsedIds) {
            match shadow.state {
                State::Head => {}
                State::Free => return Err(self.fail(RingError::NotInFlight(head))),
                State::Body => return Err(self.fail(RingError::NotHead(head))),
            }
        }
        if len > shadow.claimable && !self.defects.has(Defect::TrustsLengths) {
            return Err(self.fail(RingError::TooLong(len)));
        }
        #[cfg(test)]
        let freed = if self.defects.has(Defect::FreesInOrder) { self.oldest() } else { head };
        #[cfg(not(test))]
        let freed = head;
        self.release(freed, shadow.count);
        self.next_used = self.next_used.wrapping_add(1);
        self.in_flight = self.in_flight.wrapping_sub(1);
        self.returned = self.returned.wrapping_add(1);
        // No more than it can have written, whatever it counts.
        let len = if self.defects.has(Defect::TrustsLengths) { len } else { len.min(shadow.writable) };
        Ok(Some(Used { head, len }))
    }

    /// Puts a chain's descriptors back on the free list, by its private shadow.
    #[inline]
    fn release(&mut self, head: u16, count: u16) {
        #[cfg(test)]
        if self.defects.has(Defect::TrustsSharedChains) {
            return self.release_by_shared_memory(head);
        }
        let mut tail = head;
        for _ in 1..count {
            self.shadow[usize::from(tail)].state = State::Free;
            tail = self.shadow[usize::from(tail)].next;
        }
        let last = &mut self.shadow[usize::from(tail)];
        last.state = State::Free;
        last.next = self.free_head;
        self.free_head = head;
        self.free = self.free.wrapping_add(count);
    }

    #[cfg(test)]
    fn oldest(&self) -> u16 {
        let heads = (0..).zip(&self.shadow).filter(|(_, shadow)| shadow.state == State::Head);
        let age = |at: u16| self.next_available.wrapping_sub(at);
        heads.max_by_key(|(_, shadow)| age(shadow.at)).map_or(0, |(head, _)| head)
    }

    #[cfg(test)]
    fn release_by_shared_memory(&mut self, head: u16) {
        let (mut tail, mut count) = (head, 1);
        self.shadow[usize::from(tail)].state = State::Free;
        while let Some(next) = self.memory.shared_next(tail).map(|next| next & self.mask) {
            if count == self.size {
                break;
            }
            self.shadow[usize::from(tail)].next = next;
            tail = next;
            self.shadow[usize::from(tail)].state = State::Free;
            count += 1;
        }
        self.shadow[usize::from(tail)].next = self.free_head;
        self.free_head = head;
        self.free = self.free.wrapping_add(count);
    }

    #[cold]
    fn fail(&mut self, error: RingError) -> RingError {
        self.broken = Some(error);
        error
    }

    /// Asks for no interrupts while the caller drains. A hint: one may still come.
    #[inline]
    pub fn disable_interrupts(&mut self) {
        // With EVENT_IDX the event stays where it is: the device passed it when it raised this interrupt, and will not again.
        if !self.event_idx {
            self.memory.set_available_flags(AVAIL_NO_INTERRUPT);
        }
    }

    /// Asks for an interrupt at the next chain used. `true` if one was used meanwhile: the caller must drain again, since no
    /// interrupt may come for it.
    #[must_use = "a chain used before interrupts were on raises none"]
    #[inline]
    pub fn enable_interrupts(&mut self) -> bool {
        if self.event_idx {
            self.memory.set_used_event(self.next_used);
        } else {
            self.memory.set_available_flags(0);
        }
        // The request for an interrupt above must be visible before the look below: the device stores its index, fences, and reads what we
        // asked for. Without both fences it may read our old wish while we read its old index, and the chain is forgotten.
        self.memory.full_fence();
        self.broken.is_none() && self.memory.used_index() != self.next_used
    }

    #[cfg(test)]
    pub(crate) fn set_defects(&mut self, defects: Defects) {
        self.defects = defects;
    }

    /// Checks the private bookkeeping: every descriptor is free or in one chain, and the counts agree.
    #[cfg(test)]
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let mut seen = alloc::vec![false; usize::from(self.size)];
        let mut at = self.free_head;
        for _ in 0..self.free {
            if core::mem::replace(&mut seen[usize::from(at)], true) || self.shadow[usize::from(at)].state != State::Free
            {
                return Err("the free list holds a descriptor twice, or one in use");
            }
            at = self.shadow[usize::from(at)].next;
        }
        let heads = self.shadow.iter().filter(|shadow| shadow.state == State::Head).count();
        if heads != usize::from(self.in_flight) {
            return Err("heads are not what is in flight");
        }
        for shadow in self.shadow.iter().filter(|shadow| shadow.state != State::Free) {
            let _ = shadow;
        }
        let taken = self.shadow.iter().filter(|shadow| shadow.state != State::Free).count();
        if taken + usize::from(self.free) != usize::from(self.size) { Err("descriptors are lost") } else { Ok(()) }
    }
}
