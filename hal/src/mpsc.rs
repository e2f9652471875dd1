//! An intrusive multi-producer, single-consumer queue: the core of bottom-half and run queues.
//!
//! Source: Dmitry Vyukov's intrusive MPSC node-based queue. A push is one swap and one store: it never waits for
//! another producer, never allocates and cannot find the queue full, so a hard interrupt may push in the middle of a push that
//! it interrupted. What such a half-done push costs is that the consumer sees [`Pop::Busy`] and comes back; the producer that
//! was interrupted announces its work after the push is whole, so nothing is forgotten (A-BHQ-01).
//!
//! UNSAFETY: an intrusive list cannot be written without raw pointers; the queue owns one reference of each linked
//! node, given to it by `push` and returned by `pop`.

use core::ptr::{self, NonNull};

use crate::atomic::{AtomicPtr, Ordering, const_unless_model, step};
use crate::broken::{self, Hazard};

/// The link inside a node.
#[derive(Debug)]
pub(crate) struct Link {
    next: AtomicPtr<Link>,
}

impl Link {
    const_unless_model! {
        pub(crate) fn new() -> Self {
            Self { next: AtomicPtr::new(ptr::null_mut()) }
        }
    }
}

/// What a pop found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pop {
    /// A node, whose reference now is the caller's.
    Node(NonNull<Link>),
    /// Nothing.
    Empty,
    /// A push is under way; what follows is not reachable yet.
    Busy,
}

#[derive(Debug)]
pub(crate) struct Queue {
    /// Where producers append. Null only before the first use.
    tail: AtomicPtr<Link>,
    /// Where the consumer takes. Written by the consumer only.
    head: AtomicPtr<Link>,
    stub: Link,
}

// SAFETY: producers use atomics only; `head` is touched by the single consumer, which `pop` demands.
unsafe impl Sync for Queue {}
// SAFETY: the raw pointers are to nodes that the queue owns a reference of.
unsafe impl Send for Queue {}

impl Queue {
    const_unless_model! {
        /// An empty queue. It must not move any more once it was used.
        pub(crate) fn new() -> Self {
            // The stub's address is not known in a const fn: null stands for it until the first push or pop.
            Self { tail: AtomicPtr::new(ptr::null_mut()), head: AtomicPtr::new(ptr::null_mut()), stub: Link::new() }
        }
    }

    fn stub(&self) -> *mut Link {
        (&raw const self.stub).cast_mut()
    }

    /// Appends a node. Any context.
    ///
    /// # Safety
    /// `node` is not linked in any queue, and stays valid and at its place until `pop` returns it.
    pub(crate) unsafe fn push(&self, node: NonNull<Link>) {
        // SAFETY: the node is valid, and nobody else uses its link yet.
        unsafe { node.as_ref() }.next.store(ptr::null_mut(), Ordering::Relaxed);
        step();
        // Release publishes the node's contents; acquire orders us after the previous producer's initialisation.
        let prev = self.tail.swap(node.as_ptr(), Ordering::AcqRel);
        step();
        let prev = if prev.is_null() { self.stub() } else { prev };
        // SAFETY: `prev` is the stub or a node that cannot be popped before its `next` is set, which only we do: it is
        // valid. Between the swap and this store the consumer sees `Busy`.
        unsafe { &*prev }.next.store(node.as_ptr(), broken::ordering(Hazard::RelaxedPublication, Ordering::Release));
    }

    /// Whether nothing is queued. Exact for the consumer and for what interrupts it; others get a hint.
    pub(crate) fn is_empty(&self) -> bool {
        let is_stub = |link: *mut Link| link.is_null() || link == self.stub();
        // Both ends: the stub may stand behind nodes that are still to be taken.
        let head_done = is_stub(self.head.load(Ordering::Relaxed)) || broken::is(Hazard::EmptyByTailAlone);
        head_done && is_stub(self.tail.load(Ordering::Acquire))
    }

    /// Takes the first node.
    ///
    /// # Safety
    /// One consumer at a time, each seeing what the last one did.
    pub(crate) unsafe fn pop(&self) -> Pop {
        // Relaxed: the consumer reads what it wrote itself.
        let mut head = self.head.load(Ordering::Relaxed);
        if head.is_null() {
            head = self.stub();
        }
        // SAFETY: head is the stub or a linked node.
        let mut next = unsafe { &*head }.next.load(Ordering::Acquire);
        if head == self.stub() {
            if next.is_null() {
                return if self.is_empty() { Pop::Empty } else { Pop::Busy };
            }
            self.head.store(next, Ordering::Relaxed);
            head = next;
            // SAFETY: head is a linked node now.
            next = unsafe { &*head }.next.load(Ordering::Acquire);
        }
        if let (Some(node), false) = (NonNull::new(head), next.is_null()) {
            self.head.store(next, Ordering::Relaxed);
            return Pop::Node(node);
        }
        // `head` is the last node we can see. To hand it out, something must stand behind it: the stub.
        step();
        if self.tail.load(Ordering::Acquire) != head {
            return Pop::Busy;
        }
        // SAFETY: the stub is not linked: the consumer moved past it, and only the consumer pushes it.
        unsafe { self.push(NonNull::from(&self.stub)) };
        step();
        // SAFETY: head is still linked.
        next = unsafe { &*head }.next.load(Ordering::Acquire);
        match NonNull::new(head) {
            Some(node) if !next.is_null() => {
                self.head.store(next, Ordering::Relaxed);
                Pop::Node(node)
            }
            _ => Pop::Busy,
        }
    }
}

#[cfg(all(test, not(shuttle)))]
#[path = "mpsc_tests.rs"]
mod tests;
