//! The memory of the old systems, where a pointer outlives what it points to, and the lists that were kept in it.
//!
//! A freed block is the next to be handed out, as with the kernels' allocators. Each pointer remembers which block it was made for, which
//! those of C did not: that is how a use after free is noticed, before it does anything.

use std::marker::PhantomData;

use crate::watch::{Step, Violation};

/// A pointer as in C: copied at will, kept at will.
#[derive(Debug)]
pub struct Ptr<T> {
    slot: usize,
    generation: u32,
    _of: PhantomData<fn() -> T>,
}

impl<T> Clone for Ptr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Ptr<T> {}
impl<T> PartialEq for Ptr<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.slot, self.generation) == (other.slot, other.generation)
    }
}

impl<T> Ptr<T> {
    /// Whether both are the same address, which is all that C compares.
    pub fn same_address(self, other: Self) -> bool {
        self.slot == other.slot
    }

    /// A number for this use of this block.
    pub fn id(self) -> usize {
        self.slot * 1_000_000 + self.generation as usize
    }
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// All blocks of one type.
pub struct Memory<T> {
    slots: Vec<Slot<T>>,
    free: Vec<usize>,
    /// A pointer to a block that was handed out again leads to the new owner's value, unnoticed: as it was.
    pub blind: bool,
}

impl<T> Memory<T> {
    pub fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), blind: false }
    }

    /// A block. What was freed last is handed out first.
    pub fn alloc(&mut self, value: T) -> Ptr<T> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, value: None });
            self.slots.len() - 1
        });
        self.slots[slot].value = Some(value);
        Ptr { slot, generation: self.slots[slot].generation, _of: PhantomData }
    }

    pub fn free(&mut self, ptr: Ptr<T>) -> Step<T> {
        let slot = &mut self.slots[ptr.slot];
        if slot.generation != ptr.generation {
            return Err(Violation::DoubleFree);
        }
        slot.generation += 1;
        self.free.push(ptr.slot);
        slot.value.take().ok_or(Violation::DoubleFree)
    }

    /// Reads or writes through a pointer.
    pub fn at(&mut self, ptr: Ptr<T>) -> Step<&mut T> {
        let slot = &mut self.slots[ptr.slot];
        let reused = slot.value.is_some();
        match &mut slot.value {
            Some(value) if slot.generation == ptr.generation || self.blind => Ok(value),
            _ => Err(Violation::UseAfterFree { reused }),
        }
    }

    /// How many blocks are not free.
    pub fn live(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// The links of a list, kept in what is linked. They stay as they are when a node is removed.
#[derive(Debug, Clone, Copy)]
pub struct Link<K> {
    next: Option<K>,
    prev: Option<K>,
}

impl<K> Default for Link<K> {
    fn default() -> Self {
        Self { next: None, prev: None }
    }
}

/// Where the links are.
pub trait Nodes<K> {
    fn link(&mut self, node: K) -> Step<&mut Link<K>>;
}

/// A list's head: everything else is in the nodes. Nothing is checked by those who change it, as ever.
#[derive(Debug)]
pub struct List<K> {
    first: Option<K>,
    last: Option<K>,
}

impl<K> Default for List<K> {
    fn default() -> Self {
        Self { first: None, last: None }
    }
}

impl<K: Copy + PartialEq> List<K> {
    pub fn insert(&mut self, nodes: &mut impl Nodes<K>, node: K) -> Step {
        *nodes.link(node)? = Link { next: None, prev: self.last };
        match self.last.replace(node) {
            Some(last) => nodes.link(last)?.next = Some(node),
            None => self.first = Some(node),
        }
        Ok(())
    }

    pub fn remove(&mut self, nodes: &mut impl Nodes<K>, node: K) -> Step {
        let Link { next, prev } = *nodes.link(node)?;
        match prev {
            Some(prev) => nodes.link(prev)?.next = next,
            None => self.first = next,
        }
        match next {
            Some(next) => nodes.link(next)?.prev = prev,
            None => self.last = prev,
        }
        Ok(())
    }

    /// What is linked, in order. A list whose two directions disagree, or that does not end, is corrupt.
    pub fn walk(&self, nodes: &mut impl Nodes<K>) -> Step<Vec<K>> {
        let mut walked = Vec::new();
        let mut at = self.first;
        while let Some(node) = at {
            let link = nodes.link(node)?;
            if link.prev != walked.last().copied() || walked.len() > 1000 {
                return Err(Violation::ListCorruption);
            }
            at = link.next;
            walked.push(node);
        }
        if walked.last().copied() != self.last {
            return Err(Violation::ListCorruption);
        }
        Ok(walked)
    }
}
