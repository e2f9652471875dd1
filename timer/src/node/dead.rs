//! What is left of a node when nobody has it any more.
//!
//! UNSAFETY: a node whose only owner this is, its type erased.

use core::ptr::NonNull;

use super::Node;
use crate::state::Tag;
use crate::wheel::Links;

/// A node that nobody has a reference to, to be freed. Dropping it leaks the node.
#[derive(Debug)]
pub(crate) struct Dead(pub(super) NonNull<Node>);

// SAFETY: a node may be sent.
unsafe impl Send for Dead {}

impl Dead {
    fn node(&self) -> &Node {
        // SAFETY: it is ours alone.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn tag(&self) -> Tag {
        Tag::from_bits(self.links().tag)
    }

    fn links(&self) -> &Links {
        // SAFETY: it is ours alone.
        unsafe { &*self.node().links.get() }
    }

    /// Puts it before others.
    pub(crate) fn push(self, list: &mut Option<Self>) {
        self.links().chain(list.take().map(|dead| dead.0.cast()));
        *list = Some(self);
    }

    /// Takes the first of some.
    pub(crate) fn pop(list: &mut Option<Self>) -> Option<Self> {
        let first = list.take()?;
        // A chain of nodes' links, each a node's first field.
        *list = first.links().unchain().map(|links| Self(links.cast()));
        Some(first)
    }

    /// Drops the handler and frees the node. Bottom half or task, with no lock held.
    pub(crate) fn free(self) {
        // SAFETY: the table is its type's, and nobody else has it.
        unsafe { (self.node().table.free)(self.0) };
    }
}
