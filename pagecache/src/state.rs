//! The states of a page, and which may follow which. Any context.

use crate::broken::{self, Hazard};

/// What a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PageState {
    /// Nobody's: it holds nothing.
    Free,
    /// Its bytes are on their way from the device; not valid.
    Reading,
    /// What the device has, or had when it was last asked.
    Clean,
    /// Newer than what the device has.
    Dirty,
    /// Its bytes, as they are, are on their way to the device.
    Writing,
    /// Older bytes of it are on their way to the device; it has newer ones.
    Redirtied,
}

impl PageState {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Free, Self::Reading, Self::Clean, Self::Dirty, Self::Writing, Self::Redirtied];

    /// The table of legal changes.
    pub const fn may_become(self, to: Self) -> bool {
        use PageState::{Clean, Dirty, Free, Reading, Redirtied, Writing};
        matches!(
            (self, to),
            // A read begins; a write covers the whole page.
            (Free, Reading | Dirty)
            // The read ended: well, or not.
            | (Reading, Clean | Free)
            // A write; an eviction or discard.
            | (Clean, Dirty | Free)
            // A write-back begins; a discard.
            | (Dirty, Writing | Free)
            // The write-back ended: well, or not. A write meanwhile.
            | (Writing, Clean | Dirty | Redirtied)
            // The write-back ended, either way.
            | (Redirtied, Dirty)
        )
    }

    /// Whether its bytes are what was written or read last.
    pub const fn is_valid(self) -> bool {
        matches!(self, Self::Clean | Self::Dirty | Self::Writing | Self::Redirtied)
    }

    /// Whether it has bytes that are not even on their way to the device.
    pub const fn is_dirty(self) -> bool {
        matches!(self, Self::Dirty | Self::Redirtied)
    }

    /// Whether a write-back of it is under way.
    pub const fn is_writing(self) -> bool {
        matches!(self, Self::Writing | Self::Redirtied)
    }
}

/// Checks a change of state.
///
/// # Panics
/// In debug and test builds, if the change is not legal.
pub(crate) fn check(index: u64, from: PageState, to: PageState) {
    if !broken::is(Hazard::AnyChange) {
        debug_assert!(from.may_become(to), "page {index} cannot become {to:?}: it is {from:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::PageState::{Clean, Dirty, Free, Reading, Redirtied, Writing};
    use super::*;

    /// A-PC-43, from the other side: whoever changes the table changes this list too.
    #[test]
    fn a_pc_43_the_legal_changes_are_these_twelve() {
        let legal: Vec<_> = PageState::ALL
            .into_iter()
            .flat_map(|from| PageState::ALL.map(|to| (from, to)))
            .filter(|(from, to)| from.may_become(*to))
            .collect();
        let expected = [
            (Free, Reading),
            (Free, Dirty),
            (Reading, Free),
            (Reading, Clean),
            (Clean, Free),
            (Clean, Dirty),
            (Dirty, Free),
            (Dirty, Writing),
            (Writing, Clean),
            (Writing, Dirty),
            (Writing, Redirtied),
            (Redirtied, Dirty),
        ];
        assert_eq!(legal, expected);
    }

    fn illegal() -> Result<(), String> {
        for from in PageState::ALL {
            for to in PageState::ALL.into_iter().filter(|to| !from.may_become(*to)) {
                let caught = std::panic::catch_unwind(|| check(7, from, to));
                if caught.is_ok() {
                    return Err(format!("{from:?} became {to:?}, and nobody said a word"));
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_pc_43_an_illegal_change_is_caught() {
        illegal().unwrap();
    }

    #[test]
    fn a_pc_43_an_illegal_change_is_caught_control() {
        let error = broken::with(Hazard::AnyChange, illegal).unwrap_err();
        assert!(error.contains("nobody said a word"), "{error}");
    }
}
