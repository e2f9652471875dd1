//! Intrusive lists: the one part of the wheel with `unsafe` in it.
//!
//! UNSAFETY: nodes belong to somebody else and are reached by address. The wheel's contract ([`super::Wheel::insert`]) is that a linked
//! node stays where it is, and that whoever has the wheel (`&mut`, under its lock) is alone with the links of all nodes in it. Each
//! node here is such a node: a list hands out no address that was not put in, and forgets a node when it is taken out.

use core::cell::Cell;
use core::ptr::NonNull;

/// In no list.
pub(super) const NOWHERE: u16 = u16::MAX;
/// In the list of those that are due.
pub(super) const DUE: u16 = u16::MAX - 1;
/// In the list of those whose time was past when they came.
pub(super) const OVERDUE: u16 = u16::MAX - 2;

/// In a line of the owner's.
const IN_LINE: u16 = u16::MAX - 3;

/// What a node needs to be in a wheel, and two words of its owner: 32 bytes.
///
/// Contexts: any; all of it belongs to whoever holds the wheel's lock while the node is linked.
#[derive(Debug)]
#[repr(C)]
pub struct Links {
    next: Cell<Option<NonNull<Links>>>,
    prev: Cell<Option<NonNull<Links>>>,
    deadline: Cell<u64>,
    place: Cell<u16>,
    /// The owner's.
    pub tag: u16,
    /// The owner's.
    pub word: u32,
}

const _: () = assert!(size_of::<Links>() == 32);

impl Links {
    /// Of a node that is in no wheel.
    pub const fn new() -> Self {
        Self {
            next: Cell::new(None),
            prev: Cell::new(None),
            deadline: Cell::new(0),
            place: Cell::new(NOWHERE),
            tag: 0,
            word: 0,
        }
    }

    /// The deadline with which it was inserted last, in nanoseconds.
    #[inline]
    pub fn deadline(&self) -> u64 {
        self.deadline.get()
    }

    /// Notes a deadline for a node that is in no wheel.
    pub(crate) fn set_deadline(&self, deadline: u64) {
        debug_assert!(!self.is_linked());
        self.deadline.set(deadline);
    }

    /// Uses the links of a node that is nowhere for a chain of its owner's.
    pub(crate) fn chain(&self, next: Option<NonNull<Links>>) {
        debug_assert!(!self.is_linked());
        self.next.set(next);
    }

    /// What it was chained to.
    pub(crate) fn unchain(&self) -> Option<NonNull<Links>> {
        self.next.take()
    }

    /// Whether it is in a wheel, on a wheel's list of those that are due, or in line.
    #[inline]
    pub fn is_linked(&self) -> bool {
        self.place.get() != NOWHERE
    }

    /// Whether it is on a wheel's list of those that are due.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.place.get() == DUE
    }
}

impl Default for Links {
    fn default() -> Self {
        Self::new()
    }
}

/// The address of a node that the wheel may work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node(NonNull<Links>);

// SAFETY: the links behind it are reached under the exclusion that the wheel's contract asks for, on whichever CPU that is.
unsafe impl Send for Node {}

impl Node {
    /// # Safety
    /// The node stays in place, and whoever uses the value is alone with its links, until the value and all its copies are gone.
    #[inline]
    pub(super) const unsafe fn new(node: NonNull<Links>) -> Self {
        Self(node)
    }

    /// To hand it back.
    #[inline]
    pub(super) const fn address(self) -> NonNull<Links> {
        self.0
    }

    #[inline]
    fn links(&self) -> &Links {
        // SAFETY: it is in place and nobody else works on it, by `new`; what is written meanwhile is in cells.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(super) fn deadline(self) -> u64 {
        self.links().deadline.get()
    }

    #[inline]
    pub(super) fn set_deadline(self, deadline: u64) {
        self.links().deadline.set(deadline);
    }

    #[inline]
    pub(super) fn place(self) -> u16 {
        self.links().place.get()
    }
}

/// A list in which any node can be taken out at once. What comes last is first.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct List {
    head: Option<Node>,
}

impl List {
    pub(super) const EMPTY: Self = Self { head: None };

    #[inline]
    pub(super) const fn first(&self) -> Option<Node> {
        self.head
    }

    /// Puts a node first that is in no list.
    #[inline]
    pub(super) fn push(&mut self, node: Node, place: u16) {
        let links = node.links();
        links.place.set(place);
        links.prev.set(None);
        links.next.set(self.head.map(Node::address));
        if let Some(next) = self.head {
            next.links().prev.set(Some(node.0));
        }
        self.head = Some(node);
    }

    /// Takes out a node that is in this list. Its place is `NOWHERE` then.
    #[inline]
    pub(super) fn unlink(&mut self, node: Node) {
        let links = node.links();
        links.place.set(NOWHERE);
        let (prev, next) = (links.prev.get().map(Node), links.next.get().map(Node));
        if let Some(next) = next {
            next.links().prev.set(prev.map(Node::address));
        }
        match prev {
            Some(prev) => prev.links().next.set(next.map(Node::address)),
            None => self.head = next,
        }
    }

    /// From the first to the last.
    pub(super) fn iter(&self) -> impl Iterator<Item = Node> + '_ {
        core::iter::successors(self.head, |node| node.links().next.get().map(Node))
    }
}

/// A list that remembers its end: what comes first is first.
#[derive(Debug)]
pub(super) struct Queue {
    list: List,
    tail: Option<Node>,
    place: u16,
}

impl Queue {
    /// Its nodes carry `place`.
    pub(super) const fn new(place: u16) -> Self {
        Self { list: List::EMPTY, tail: None, place }
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.list.head.is_none()
    }

    #[inline]
    pub(super) const fn first(&self) -> Option<Node> {
        self.list.first()
    }

    /// Puts a node last that is in no list.
    #[inline]
    pub(super) fn push(&mut self, node: Node) {
        let Some(tail) = self.tail.replace(node) else { return self.list.push(node, self.place) };
        let links = node.links();
        links.place.set(self.place);
        links.prev.set(Some(tail.0));
        links.next.set(None);
        tail.links().next.set(Some(node.0));
    }

    /// Takes out a node that is in this queue.
    #[inline]
    pub(super) fn unlink(&mut self, node: Node) {
        if self.tail == Some(node) {
            self.tail = node.links().prev.get().map(Node);
        }
        self.list.unlink(node);
    }

    /// Takes out the first.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Node> {
        let node = self.list.first()?;
        self.unlink(node);
        Some(node)
    }
}

/// Nodes in line, first in first out, for the wheel's owner: a node is in a wheel or in a line, by the same links.
#[derive(Debug)]
pub(crate) struct Line {
    queue: Queue,
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { queue: Queue::new(IN_LINE), len: 0 }
    }
}

impl Line {
    /// The first.
    #[inline]
    pub(crate) fn first(&self) -> Option<NonNull<Links>> {
        self.queue.first().map(Node::address)
    }

    /// How many.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Puts a node last.
    ///
    /// # Safety
    /// As [`super::Wheel::insert`]: it is nowhere, stays in place until it is removed, and whoever has the line is alone with its links.
    #[inline]
    pub(crate) unsafe fn push(&mut self, node: NonNull<Links>) {
        // SAFETY: passed on from the caller.
        self.queue.push(unsafe { Node::new(node) });
        self.len += 1;
    }

    /// Takes a node out.
    ///
    /// # Safety
    /// It is in this line.
    #[inline]
    pub(crate) unsafe fn remove(&mut self, node: NonNull<Links>) {
        // SAFETY: what is in the line is in place and ours, by `push`.
        self.queue.unlink(unsafe { Node::new(node) });
        self.len -= 1;
    }
}
