//! The packed virtqueue's algorithm (virtio 1.2, 2.8). Any context, under the owner's lock.
//!
//! One ring of descriptors is written by both sides: a descriptor is the device's when its two wrap bits differ and the first is the
//! driver's wrap counter, and used when both are the device's. Places are handed out in ring order and come back in ring order, whatever
//! buffers they come back with; which buffer it is says its id, and how many places it took is private knowledge.
//!
//! # Publishing
//! A chain's descriptors are written with their flags as it is finished, except the first descriptor of the first chain since the last
//! [`Packed::publish`], whose flags that stores last: a device reads in ring order and stops there.

use alloc::boxed::Box;

use super::chain::AddError;
use super::event::need_event;
use super::packed_chain::PackedChain;
use super::packed_memory::PackedMemory;
use super::split::{RingError, Used};
use crate::defect::{Defect, Defects};
use crate::wire::ring::MAX_SIZE;
use crate::wire::ring::packed::{AVAIL, EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, EVENT_WRAP, USED};

/// A place in the ring with the wrap counter that holds there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Below the ring's size.
    pub(super) index: u16,
    pub(super) wrap: bool,
}

impl Place {
    const FIRST: Self = Self { index: 0, wrap: true };

    /// `by` places further; `by` is at most `size`.
    #[inline]
    pub(super) const fn further(self, by: u16, size: u16) -> Self {
        let index = self.index as u32 + by as u32;
        if index < size as u32 {
            Self { index: index as u16, wrap: self.wrap }
        } else {
            Self { index: (index - size as u32) as u16, wrap: !self.wrap }
        }
    }

    /// The wrap bits that make a descriptor here available.
    #[inline]
    pub(super) const fn available(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }

    /// Whether a descriptor here with these flags is used.
    #[inline]
    const fn is_used(self, flags: u16) -> bool {
        let bits = flags & (AVAIL | USED);
        if self.wrap { bits == AVAIL | USED } else { bits == 0 }
    }

    const fn event(self) -> u16 {
        if self.wrap { self.index | EVENT_WRAP } else { self.index }
    }
}

/// What is known of a buffer id, in private memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shadow {
    /// The next free id.
    pub(super) next: u16,
    pub(super) in_flight: bool,
    /// Places that the chain took.
    pub(super) count: u16,
    /// Chains made before it, wrapping.
    pub(super) at: u16,
    /// Bytes that the device may write.
    pub(super) writable: u32,
    /// Bytes that it may say it wrote.
    pub(super) claimable: u32,
}

impl Shadow {
    const fn free(id: u16) -> Self {
        Self { next: id + 1, in_flight: false, count: 0, at: 0, writable: 0, claimable: 0 }
    }
}

/// A packed virtqueue over memory `M`.
#[derive(Debug)]
pub struct Packed<M> {
    pub(super) memory: M,
    pub(super) size: u16,
    event_idx: bool,
    pub(super) shadow: Box<[Shadow]>,
    /// First free id; meaningful while `free > 0`: there are as many ids as places.
    pub(super) free_id: u16,
    /// Free places.
    pub(super) free: u16,
    /// Where the next chain begins.
    pub(super) next_available: Place,
    /// Where the next used descriptor appears.
    next_used: Place,
    /// Flags that wait to be stored, and where.
    pub(super) held: Option<(u16, u16)>,
    /// Places taken since the last publish.
    pub(super) unpublished: u16,
    /// Chains made, and those that the device was told of, wrapping.
    pub(super) made: u16,
    told: u16,
    pub(super) in_flight: u16,
    returned: u32,
    broken: Option<RingError>,
    defects: Defects,
}

impl<M: PackedMemory> Packed<M> {
    /// A ring of `size` descriptors (1 to 32,768) over zeroed memory; `None` for another size.
    pub fn new(memory: M, size: u16, event_idx: bool) -> Option<Self> {
        if size == 0 || size > MAX_SIZE {
            return None;
        }
        Some(Self {
            memory,
            size,
            event_idx,
            shadow: (0..size).map(Shadow::free).collect(),
            free_id: 0,
            free: size,
            next_available: Place::FIRST,
            next_used: Place::FIRST,
            held: None,
            unpublished: 0,
            made: 0,
            told: 0,
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

    /// Chains that came back in all, wrapping.
    pub const fn returned(&self) -> u32 {
        self.returned
    }

    /// Whether the device was told of the chain in flight: if not, it has not touched it.
    pub fn was_told(&self, head: u16) -> bool {
        let since = |made: u16| made.wrapping_sub(self.told);
        self.shadow.get(usize::from(head)).is_none_or(|shadow| since(shadow.at) >= since(self.made))
    }

    /// Makes the ring as it was at first, memory and all, with nothing in flight. The device does not use it: it was reset.
    pub fn restart(&mut self) {
        self.memory.clear();
        for (id, shadow) in (0..).zip(&mut self.shadow) {
            *shadow = Shadow::free(id);
        }
        (self.free_id, self.free, self.in_flight) = (0, self.size, 0);
        (self.next_available, self.next_used) = (Place::FIRST, Place::FIRST);
        (self.held, self.unpublished, self.made, self.told) = (None, 0, 0, 0);
        self.broken = None;
    }

    /// Begins a chain of exactly `count` buffers. Nothing changes until [`PackedChain::finish`].
    ///
    /// # Errors
    /// [`AddError`].
    #[inline]
    pub fn chain(&mut self, count: u16) -> Result<PackedChain<'_, M>, AddError> {
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
        let id = self.free_id;
        Ok(PackedChain::new(self, id, count, indirect))
    }

    /// Free places.
    pub const fn free(&self) -> u16 {
        self.free
    }

    /// The name of the next chain, if there is one: below the ring's size.
    #[inline]
    pub const fn next_head(&self) -> u16 {
        self.free_id
    }

    /// Tells the device of the chains finished since the last time. `true` if it wants a kick for them, which the caller then owes it.
    #[must_use = "a device that asked for a kick waits for it"]
    #[inline]
    pub fn publish(&mut self) -> bool {
        let Some((index, flags)) = self.held.take() else { return false };
        if self.broken.is_some() {
            return false;
        }
        self.memory.publish(index, flags);
        self.told = self.made;
        let added = core::mem::take(&mut self.unpublished);
        // The store of the flags above must be visible before the load below: a device that goes to sleep stores what it wants to hear,
        // fences, and looks at the descriptor once more. Without both fences each side may read what the other had before, and both wait.
        self.memory.full_fence();
        let (at, how) = self.memory.device_event();
        if !self.event_idx || how != EVENT_DESC {
            return how != EVENT_DISABLE;
        }
        // As free-running numbers of one lap: an event of the lap before lies a ring's size behind.
        let new = self.next_available.index;
        let same_lap = (at & EVENT_WRAP != 0) == self.next_available.wrap;
        let event = at & !EVENT_WRAP;
        let event =
            if same_lap || self.defects.has(Defect::PlainWindow) { event } else { event.wrapping_sub(self.size) };
        need_event(event, new, new.wrapping_sub(added))
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
        // Acquire: id, length and what the device wrote into the buffers are read after it.
        if !self.next_used.is_used(self.memory.flags(self.next_used.index)) {
            return Ok(None);
        }
        // Read once, into private memory; validated there.
        let (id, len) = self.memory.used(self.next_used.index);
        let Some(&shadow) = self.shadow.get(usize::from(id)) else {
            return Err(self.fail(RingError::IdOutOfRange(u32::from(id))));
        };
        if !shadow.in_flight && !self.defects.has(Defect::TrustsUsedIds) {
            return Err(self.fail(RingError::NotInFlight(id)));
        }
        if len > shadow.claimable && !self.defects.has(Defect::TrustsLengths) {
            return Err(self.fail(RingError::TooLong(len)));
        }
        let wrap = self.next_used.wrap;
        self.next_used = self.next_used.further(shadow.count, self.size);
        if self.defects.has(Defect::KeepsWrap) {
            self.next_used.wrap = wrap;
        }
        let free = &mut self.shadow[usize::from(id)];
        (free.in_flight, free.next) = (false, self.free_id);
        self.free_id = id;
        self.free = self.free.wrapping_add(shadow.count);
        self.in_flight = self.in_flight.wrapping_sub(1);
        self.returned = self.returned.wrapping_add(1);
        // No more than it can have written, whatever it counts.
        let len = if self.defects.has(Defect::TrustsLengths) { len } else { len.min(shadow.writable) };
        Ok(Some(Used { head: id, len }))
    }

    #[cold]
    const fn fail(&mut self, error: RingError) -> RingError {
        self.broken = Some(error);
        error
    }

    /// Asks for no interrupts while the caller drains. A hint: one may still come.
    #[inline]
    pub fn disable_interrupts(&mut self) {
        self.memory.set_driver_event(0, EVENT_DISABLE);
    }

    /// Asks for an interrupt at the next chain used. `true` if one was used meanwhile: the caller must drain again, since no
    /// interrupt may come for it.
    #[must_use = "a chain used before interrupts were on raises none"]
    #[inline]
    pub fn enable_interrupts(&mut self) -> bool {
        let how = if self.event_idx { EVENT_DESC } else { EVENT_ENABLE };
        self.memory.set_driver_event(self.next_used.event(), how);
        // As in `publish`, the other way round: the wish above must be visible before the look below.
        self.memory.full_fence();
        self.broken.is_none() && self.next_used.is_used(self.memory.flags(self.next_used.index))
    }

    #[cfg(test)]
    pub(crate) const fn set_defects(&mut self, defects: Defects) {
        self.defects = defects;
    }

    /// Checks the private bookkeeping: every id is free or in flight, and the places of those in flight are what is not free.
    #[cfg(test)]
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let flying = self.shadow.iter().filter(|shadow| shadow.in_flight);
        let (chains, places) = flying.fold((0, 0), |(chains, places), shadow| (chains + 1, places + shadow.count));
        if chains != self.in_flight || places + self.free != self.size {
            return Err("places are lost, or counted twice");
        }
        let mut seen = alloc::vec![false; usize::from(self.size)];
        let mut at = self.free_id;
        for _ in 0..self.size - chains {
            let Some(slot) = seen.get_mut(usize::from(at)) else { return Err("the list of free ids leads out of it") };
            if core::mem::replace(slot, true) || self.shadow[usize::from(at)].in_flight {
                return Err("the list of free ids holds one twice, or one in flight");
            }
            at = self.shadow[usize::from(at)].next;
        }
        Ok(())
    }
}
