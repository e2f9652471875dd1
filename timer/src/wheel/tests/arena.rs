//! Nodes for tests, each with a number.

use core::ptr::NonNull;

use crate::wheel::Links;

/// Nodes that stay in place.
pub(super) struct Arena {
    nodes: Box<[Links]>,
    first: NonNull<Links>,
}

impl Arena {
    pub(super) fn new(count: usize) -> Self {
        let mut nodes: Box<[Links]> = (0..count).map(|_| Links::new()).collect();
        let first = NonNull::new(nodes.as_mut_ptr()).expect("a box is somewhere");
        Self { nodes, first }
    }

    pub(super) fn node(&self, number: usize) -> NonNull<Links> {
        assert!(number < self.nodes.len());
        // SAFETY: it is one of them.
        unsafe { self.first.add(number) }
    }

    pub(super) fn number(&self, node: NonNull<Links>) -> usize {
        // SAFETY: all nodes in a test's wheels are of its arena.
        usize::try_from(unsafe { node.offset_from(self.first) }).expect("it is not before the first")
    }
}
