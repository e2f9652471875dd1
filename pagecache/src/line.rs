//! Lines of operations, linked by their numbers: an operation is in one line at most. Under the volume's lock.

/// No operation.
pub(crate) const NOBODY: u16 = u16::MAX;

/// A line, first come first served.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) head: u16,
    pub(crate) tail: u16,
}

impl Line {
    pub(crate) const EMPTY: Self = Self { head: NOBODY, tail: NOBODY };

    /// Whether nobody waits.
    pub(crate) const fn is_empty(self) -> bool {
        self.head == NOBODY
    }
}
