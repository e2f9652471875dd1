//! A fixed table of requests in flight.
//!
//! A [`Tag`] is a slot's index and the generation of its use: a stale or duplicate answer names a generation that is over and finds nothing.
//! Allocated once; insert and remove are O(1). The owner provides the lock.

use alloc::boxed::Box;

/// Names one use of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag {
    index: u16,
    generation: u32,
    queue: u16,
}

impl Tag {
    /// Which use of the slot.
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// The slot.
    pub const fn index(self) -> u16 {
        self.index
    }

    /// The queue whose slab it is in.
    pub const fn queue(self) -> u16 {
        self.queue
    }

    /// As a 64-bit cookie that a device carries: queue, index, generation.
    pub const fn to_bits(self) -> u64 {
        (self.queue as u64) << 48 | (self.index as u64) << 32 | self.generation as u64
    }

    /// From what a device returned; anything may be in it.
    pub const fn from_bits(bits: u64) -> Self {
        Self { queue: (bits >> 48) as u16, index: (bits >> 32) as u16, generation: bits as u32 }
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    /// Next free slot while this one is free.
    next: u16,
    taken: bool,
    /// There while the slot is taken. In a free one, what [`Slab::end_with`] has left.
    value: Option<T>,
}

impl<T> Slot<T> {
    /// Whether it is taken, and in the use that a tag names.
    #[inline]
    const fn is(&self, tag: Tag) -> bool {
        self.taken && self.generation == tag.generation
    }
}

/// A fixed table of `T`s in use.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Box<[Slot<T>]>,
    free: u16,
    used: u16,
    queue: u16,
}

const END: u16 = u16::MAX;

impl<T> Slab<T> {
    /// A table with room for `capacity` values (at most 65,534), for queue number `queue`.
    pub fn new(queue: u16, capacity: u16) -> Self {
        let capacity = capacity.min(END - 1);
        let slots = (0..capacity)
            .map(|index| if index + 1 < capacity { index + 1 } else { END })
            .map(|next| Slot { generation: 0, next, taken: false, value: None })
            .collect();
        Self { slots, free: if capacity == 0 { END } else { 0 }, used: 0, queue }
    }

    /// Values in it.
    pub const fn len(&self) -> usize {
        self.used as usize
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Whether there is no room.
    pub const fn is_full(&self) -> bool {
        self.free == END
    }

    /// How many values fit.
    pub const fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Takes a slot for a value that is to be completed where it is: it is what [`Slab::end_with`] has left there, or else `fresh`. `None` if
    /// there is no room.
    #[inline(always)]
    pub fn begin(&mut self, fresh: impl FnOnce() -> T) -> Option<(Tag, &mut T)> {
        let index = self.free;
        let slot = self.slots.get_mut(usize::from(index))?;
        self.free = slot.next;
        slot.generation = slot.generation.wrapping_add(1);
        slot.taken = true;
        self.used += 1;
        let tag = Tag { index, generation: slot.generation, queue: self.queue };
        Some((tag, slot.value.get_or_insert_with(fresh)))
    }

    /// Puts a value in.
    ///
    /// # Errors
    /// Gives the value back when there is no room.
    pub fn insert(&mut self, value: T) -> Result<Tag, T> {
        let index = self.free;
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return Err(value) };
        self.free = slot.next;
        slot.generation = slot.generation.wrapping_add(1);
        (slot.value, slot.taken) = (Some(value), true);
        self.used += 1;
        Ok(Tag { index, generation: slot.generation, queue: self.queue })
    }

    /// The value under a tag, if that use is not over.
    pub fn get(&self, tag: Tag) -> Option<&T> {
        let slot = self.slots.get(usize::from(tag.index))?;
        if slot.is(tag) && tag.queue == self.queue { slot.value.as_ref() } else { None }
    }

    /// The value under a tag, to change.
    pub fn get_mut(&mut self, tag: Tag) -> Option<&mut T> {
        let queue = self.queue;
        let slot = self.slots.get_mut(usize::from(tag.index))?;
        if slot.is(tag) && tag.queue == queue { slot.value.as_mut() } else { None }
    }

    /// The tag of what slot `index` now holds, if it holds anything: for devices whose answers carry less than a whole tag.
    pub fn tag_at(&self, index: u16) -> Option<Tag> {
        let slot = self.slots.get(usize::from(index))?;
        slot.taken.then_some(Tag { index, generation: slot.generation, queue: self.queue })
    }

    /// Takes a value out; `None` if that use is over, whatever the tag's origin.
    pub fn remove(&mut self, tag: Tag) -> Option<T> {
        self.get(tag)?;
        self.remove_index(tag.index)
    }

    /// Takes `f` of the value under a tag, if that use is not over, and unless it is `None` ends that use. The value stays where it is, for the
    /// slot's next use to be made of: it is not moved, and `f` leaves nothing in it that is to be dropped now.
    #[inline(always)]
    pub fn end_with<R>(&mut self, tag: Tag, f: impl FnOnce(&mut T) -> Option<R>) -> Option<R> {
        let slot = self.slots.get_mut(usize::from(tag.index))?;
        if !slot.is(tag) || tag.queue != self.queue {
            return None;
        }
        let taken = f(slot.value.as_mut()?)?;
        (slot.taken, slot.next) = (false, self.free);
        self.free = tag.index;
        self.used -= 1;
        Some(taken)
    }

    /// Drops the value under a tag where it is, if that use is not over.
    #[inline]
    pub fn free(&mut self, tag: Tag) {
        let queue = self.queue;
        if let Some(slot) = self.slots.get_mut(usize::from(tag.index))
            && slot.is(tag)
            && tag.queue == queue
        {
            (slot.value, slot.taken, slot.next) = (None, false, self.free);
            self.free = tag.index;
            self.used -= 1;
        }
    }

    /// Takes out whatever is in slot `index`: for devices whose answers carry the index only.
    pub fn remove_index(&mut self, index: u16) -> Option<T> {
        let slot = self.slots.get_mut(usize::from(index))?;
        if !core::mem::take(&mut slot.taken) {
            return None;
        }
        let value = slot.value.take()?;
        slot.next = self.free;
        self.free = index;
        self.used -= 1;
        Some(value)
    }

    /// Takes out any value: to end everything after a reset.
    pub fn remove_any(&mut self) -> Option<T> {
        let index = self.slots.iter().position(|slot| slot.taken)?;
        self.remove_index(index as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_tag_finds_nothing() {
        let mut slab = Slab::new(3, 2);
        let first = slab.insert('a').unwrap();
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b').unwrap();
        assert_eq!(slab.end_with(first, |value| Some(*value)), None);
        slab.free(first);
        assert_eq!(second.index(), first.index(), "the slot is used again");
        assert_eq!(slab.tag_at(second.index()), Some(second));
        assert_eq!((slab.tag_at(1), slab.tag_at(9)), (None, None));
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.remove(Tag::from_bits(second.to_bits() ^ 1 << 48)), None, "another queue's tag");
        assert_eq!(slab.remove(Tag::from_bits(second.to_bits())), Some('b'));
        let third = slab.insert('c').unwrap();
        assert_eq!(slab.end_with(third, |_| None::<char>), None);
        assert_eq!(slab.get(third), Some(&'c'), "not ended");
        assert_eq!(slab.end_with(third, |value| Some(*value)), Some('c'));
        assert_eq!((slab.get(third), slab.len()), (None, 0));
        assert_eq!(
            (slab.remove(third), slab.tag_at(third.index()), slab.remove_any()),
            (None, None, None),
            "what is left is nobody's"
        );
        assert_eq!(
            slab.begin(|| 'd').map(|(tag, left)| (tag == third, *left)),
            Some((false, 'c')),
            "made of what is left"
        );
    }

    #[test]
    fn fills_gives_back_and_empties() {
        let mut slab = Slab::new(0, 3);
        let tags: Vec<Tag> = (0..3).map(|n| slab.insert(n).unwrap()).collect();
        assert!(slab.is_full());
        assert_eq!(slab.insert(9), Err(9));
        assert_eq!(slab.remove(tags[1]), Some(1));
        assert_eq!(slab.remove(tags[1]), None);
        assert_eq!(slab.remove_index(999), None);
        assert!(slab.remove_any().is_some() && slab.remove_any().is_some() && slab.remove_any().is_none());
        assert!(slab.is_empty());
    }
}
