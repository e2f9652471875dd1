//! Failing the n-th allocation on purpose: how a test walks through every error arm of an operation.
//!
//! Counted are the allocations that can fail gracefully: DMA memory, the locked heap's and the general heap's `try_` functions. On the
//! hosted platform each thread counts for itself. In programs without the feature `inject` (which `hosted` brings along) nothing is
//! counted and nothing fails.

/// Whether the allocation that is about to be made is to fail.
#[inline]
pub(crate) fn strikes() -> bool {
    #[cfg(feature = "std")]
    return armed::strikes();
    #[cfg(not(feature = "std"))]
    false
}

#[cfg(feature = "std")]
pub use armed::{Injected, each_failure, fail_nth};

#[cfg(feature = "std")]
mod armed {
    use std::cell::Cell;

    std::thread_local! {
        /// Allocations that still succeed before one fails.
        static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
    }

    pub(super) fn strikes() -> bool {
        let left = LEFT.get();
        LEFT.set(left.and_then(|left| left.checked_sub(1)));
        left == Some(0)
    }

    /// What became of an operation under [`fail_nth`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[must_use]
    pub struct Injected<R> {
        /// What the operation returned.
        pub value: R,
        /// Whether an allocation failed on purpose; if not, the operation makes no more than `n` of them.
        pub failed: bool,
    }

    /// Runs `f`, and fails its allocation number `n`, counted from 0, on this thread. One failure, not more: what cleans up may allocate.
    pub fn fail_nth<R>(n: u64, f: impl FnOnce() -> R) -> Injected<R> {
        /// Puts back what was there before, also when `f` panics.
        struct Restore(Option<u64>);
        impl Drop for Restore {
            fn drop(&mut self) {
                LEFT.set(self.0);
            }
        }
        let _restore = Restore(LEFT.replace(Some(n)));
        let value = f();
        Injected { value, failed: LEFT.get().is_none() }
    }

    /// T-FAILN: runs `f` with allocation 0 failing, then with 1 failing, and so on, until nothing failed. `check` looks at the result of
    /// each failed run; returned are the result of the last, and how many runs failed.
    pub fn each_failure<R>(mut f: impl FnMut() -> R, mut check: impl FnMut(u64, R)) -> (R, u64) {
        let mut n = 0;
        loop {
            let run = fail_nth(n, &mut f);
            if !run.failed {
                return (run.value, n);
            }
            check(n, run.value);
            n += 1;
        }
    }
}
