//! Negative controls: defects that a test of this crate can put back, one at a time, on its own thread.
//!
//! In a program [`is`] is the constant `false`; only `cfg(test)` builds know the switch.

/// A defect that a test can put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    /// W-18: a deadline is rounded down to its tick.
    RoundedDown,
    /// W-05: the first slot of a level is looked for from slot 0 on, not from the clock's.
    NotRotated,
}

#[cfg(test)]
std::thread_local! {
    static PUT_BACK: std::cell::Cell<Option<Defect>> = const { std::cell::Cell::new(None) };
}

/// Whether a test has put `defect` back.
#[inline(always)]
pub(super) fn is(defect: Defect) -> bool {
    #[cfg(test)]
    return PUT_BACK.get() == Some(defect);
    #[cfg(not(test))]
    {
        let _ = defect;
        false
    }
}

/// Runs `f` with `defect` put back on this thread.
#[cfg(test)]
pub(super) fn with<R>(defect: Defect, f: impl FnOnce() -> R) -> R {
    struct Mend;
    impl Drop for Mend {
        fn drop(&mut self) {
            PUT_BACK.set(None);
        }
    }
    PUT_BACK.set(Some(defect));
    let _mend = Mend;
    f()
}
