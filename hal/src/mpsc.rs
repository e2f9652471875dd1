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

/// Keeps the producers' end and the consumer's out of each other's cache lines; two, since processors fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

#[derive(Debug)]
pub(crate) struct Queue {
    /// Where producers append. Null stands for the stub: nothing is queued.
    tail: Apart<AtomicPtr<Link>>,
    /// Where the consumer takes, written by the consumer only. Null stands for the stub: at its successor.
    head: Apart<AtomicPtr<Link>>,
    /// What the first node hangs on to. It stands before all nodes: its link is cleared before the last node is taken.
    stub: Link,
}

// SAFETY: producers use atomics only; `head` is touched by the single consumer, which `pop` demands.
unsafe impl Sync for Queue {}
// SAFETY: the raw pointers are to nodes that the queue owns a reference of.
unsafe impl Send for Queue {}

impl Queue {
    const_unless_model! {
        /// An empty queue.
        pub(crate) fn new() -> Self {
            Self {
                tail: Apart(AtomicPtr::new(ptr::null_mut())),
                head: Apart(AtomicPtr::new(ptr::null_mut())),
                stub: Link::new(),
            }
        }
    }

    /// Appends a node. Any context.
    ///
    /// # Safety
    /// `node` is not linked in any queue, and stays valid and at its place until `pop` returns it.
    #[inline]
    pub(crate) unsafe fn push(&self, node: NonNull<Link>) {
        // SAFETY: the node is valid, and nobody else uses its link yet.
        unsafe { node.as_ref() }.next.store(ptr::null_mut(), Ordering::Relaxed);
        step();
        // Release publishes the node's contents; acquire orders us after the previous producer's initialisation.
        let prev = self.tail.0.swap(node.as_ptr(), Ordering::AcqRel);
        step();
        // SAFETY: `prev` is a node that cannot be popped before its `next` is set, which only we do: it is valid.
        let prev = unsafe { prev.as_ref() }.unwrap_or(&self.stub);
        // Between the swap and this store the consumer sees `Busy`.
        prev.next.store(node.as_ptr(), broken::ordering(Hazard::RelaxedPublication, Ordering::Release));
    }

    /// Whether nothing is queued. Exact for the consumer and for what interrupts it; others get a hint.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.tail.0.load(Ordering::Acquire).is_null()
    }

    /// Takes the first node.
    ///
    /// # Safety
    /// One consumer at a time, each seeing what the last one did.
    #[inline]
    pub(crate) unsafe fn pop(&self) -> Pop {
        // Relaxed: the consumer reads what it wrote itself.
        let mut head = self.head.0.load(Ordering::Relaxed);
        if head.is_null() {
            head = self.stub.next.load(Ordering::Acquire);
        }
        let Some(node) = NonNull::new(head) else {
            return if self.is_empty() { Pop::Empty } else { Pop::Busy };
        };
        // SAFETY: head is a linked node.
        let next = unsafe { node.as_ref() }.next.load(Ordering::Acquire);
        if !next.is_null() {
            self.head.0.store(next, Ordering::Relaxed);
            return Pop::Node(node);
        }
        // Nothing behind it that we can see. If it is the last, the queue becomes empty, and the stub's link is the next to be set.
        // Relaxed: no producer sets it before the exchange below publishes that the queue is empty.
        self.stub.next.store(ptr::null_mut(), Ordering::Relaxed);
        step();
        if self.detach(head) {
            step();
            self.head.0.store(ptr::null_mut(), Ordering::Relaxed);
            return Pop::Node(node);
        }
        // A push behind it is under way. The stub's link is cleared: remember where we are.
        self.head.0.store(head, Ordering::Relaxed);
        Pop::Busy
    }

    /// Makes the queue empty if `last` is its last node.
    #[inline]
    fn detach(&self, last: *mut Link) -> bool {
        if broken::is(Hazard::DetachedBlindly) {
            let is_last = self.tail.0.load(Ordering::Acquire) == last;
            step();
            if is_last {
                self.tail.0.store(ptr::null_mut(), Ordering::Release);
            }
            return is_last;
        }
        // Release: whoever sets the stub's link does so after it was cleared. The node's contents were acquired with the link to it.
        self.tail.0.compare_exchange(last, ptr::null_mut(), Ordering::Release, Ordering::Relaxed).is_ok()
    }
}

#[cfg(all(test, not(shuttle)))]
#[path = "mpsc_tests.rs"]
mod tests;
