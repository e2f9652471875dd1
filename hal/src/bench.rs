//! The bottom-half queue's core, for measurements only: nodes without work behind them.
//!
//! UNSAFETY: drives the intrusive queue, whose contract it passes on.

use core::ptr::NonNull;

use crate::mpsc::{Link, Pop, Queue};

/// A node, as large as real ones are at least: a cache line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Node {
    link: Link,
}

impl Node {
    /// One that is in no queue.
    #[expect(clippy::new_without_default, reason = "nobody needs a default of these")]
    pub const fn new() -> Self {
        Self { link: Link::new() }
    }
}

/// The queue.
#[derive(Debug)]
pub struct NodeQueue(Queue);

impl NodeQueue {
    /// An empty queue.
    #[expect(clippy::new_without_default, reason = "nobody needs a default of these")]
    pub const fn new() -> Self {
        Self(Queue::new())
    }

    /// Appends a node.
    ///
    /// # Safety
    /// The node is in no queue.
    #[inline]
    pub unsafe fn push(&self, node: &'static Node) {
        // SAFETY: a node lasts for ever, and is in no queue by the caller.
        unsafe { self.0.push(NonNull::from(&node.link)) };
    }

    /// Takes the first node.
    ///
    /// # Safety
    /// One thread at a time pops.
    #[inline]
    pub unsafe fn pop(&self) -> Option<&'static Node> {
        // SAFETY: by the caller.
        match unsafe { self.0.pop() } {
            // SAFETY: only `push` puts links in, and each is the first field of a node that lasts for ever.
            Pop::Node(link) => Some(unsafe { link.cast::<Node>().as_ref() }),
            Pop::Empty | Pop::Busy => None,
        }
    }
}
