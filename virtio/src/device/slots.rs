//! [`Slots`]: what is in flight, by the head of its chain. Any context, under the queue's lock.

use alloc::boxed::Box;

use undercroft_block::Tag;

#[derive(Debug)]
struct Slot<S> {
    generation: u32,
    value: Option<S>,
}

/// A table indexed by chain heads. The ring's free list is the table's too, so a request in flight costs one allocation of an index, not two.
#[derive(Debug)]
pub(crate) struct Slots<S> {
    slots: Box<[Slot<S>]>,
    queue: u16,
    used: u16,
}

#[inline]
fn tag(queue: u16, head: u16, generation: u32) -> Tag {
    Tag::from_bits(u64::from(queue) << 48 | u64::from(head) << 32 | u64::from(generation))
}

impl<S> Slots<S> {
    /// An empty table for a ring of `size`.
    pub(crate) fn new(queue: u16, size: u16) -> Self {
        Self { slots: (0..size).map(|_| Slot { generation: 0, value: None }).collect(), queue, used: 0 }
    }

    /// Whether nothing is in flight.
    pub(crate) const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Notes what `head` carries. The ring gave the head out, so its slot is empty.
    #[inline]
    pub(crate) fn put(&mut self, head: u16, value: S) -> Tag {
        let slot = &mut self.slots[usize::from(head)];
        slot.generation = slot.generation.wrapping_add(1);
        debug_assert!(slot.value.is_none(), "a chain's slot is taken while it is free");
        slot.value = Some(value);
        self.used += 1;
        tag(self.queue, head, slot.generation)
    }

    /// The tag that [`Slots::put`] will give for `head`.
    #[inline]
    pub(crate) fn next_tag(&self, head: u16) -> Tag {
        let generation = self.slots.get(usize::from(head)).map_or(0, |slot| slot.generation);
        tag(self.queue, head, generation.wrapping_add(1))
    }

    /// What is in flight under `tag`, if that use of its slot is not over.
    pub(crate) fn get(&self, tag: Tag) -> Option<&S> {
        let slot = self.slots.get(usize::from(tag.index())).filter(|slot| slot.generation == tag.generation())?;
        if tag.queue() == self.queue { slot.value.as_ref() } else { None }
    }

    /// All that is in flight.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &S> {
        self.slots.iter().filter_map(|slot| slot.value.as_ref())
    }

    /// Takes what `head` carried.
    #[inline]
    pub(crate) fn take(&mut self, head: u16) -> Option<S> {
        let value = self.slots.get_mut(usize::from(head))?.value.take();
        self.used -= u16::from(value.is_some());
        value
    }

    /// Takes anything, with its head: to end everything after a reset.
    pub(crate) fn take_any(&mut self) -> Option<(u16, S)> {
        if self.used == 0 {
            return None;
        }
        let taken = (0..).zip(&mut self.slots).find_map(|(head, slot)| Some((head, slot.value.take()?)));
        self.used -= u16::from(taken.is_some());
        taken
    }
}
