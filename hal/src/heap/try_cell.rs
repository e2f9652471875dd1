//! [`TryCell`]: a value for whoever comes first. Nobody waits: who finds it in use does without. Any context.

use core::fmt;

use crate::atomic::{AtomicU32, Ordering, const_unless_model};
use crate::broken::{self, Hazard};

const FREE: u32 = 0;
const IN_USE: u32 = 1;

/// See the module.
pub(super) struct TryCell<T> {
    state: AtomicU32,
    #[cfg(not(loom))]
    value: core::cell::UnsafeCell<T>,
    #[cfg(loom)]
    value: loom::cell::UnsafeCell<T>,
}

// SAFETY: the value is reached by one user at a time, each seeing what the last one did; sharing the cell lends the value to other CPUs.
unsafe impl<T: Send> Sync for TryCell<T> {}

impl<T> fmt::Debug for TryCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryCell").finish_non_exhaustive()
    }
}

impl<T> TryCell<T> {
    const_unless_model! {
        /// A cell that nobody uses.
        pub(super) fn new(value: T) -> Self {
            #[cfg(not(loom))]
            { Self { state: AtomicU32::new(FREE), value: core::cell::UnsafeCell::new(value) } }
            #[cfg(loom)]
            { Self { state: AtomicU32::new(FREE), value: loom::cell::UnsafeCell::new(value) } }
        }
    }

    /// Calls `f` with the value, unless it is in use. A use that panics leaves the cell in use for ever.
    #[inline]
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        // Acquire: we see what the last user did.
        let entered = self.state.compare_exchange(FREE, IN_USE, Ordering::Acquire, Ordering::Relaxed);
        if !broken::is(Hazard::CacheEnteredBlindly) {
            entered.ok()?;
        }
        // SAFETY: we have just become the only user; `f` cannot come back in here, where it would find the cell in use.
        #[cfg(not(loom))]
        let result = f(unsafe { &mut *self.value.get() });
        // SAFETY: as above; loom checks it.
        #[cfg(loom)]
        let result = self.value.with_mut(|value| f(unsafe { &mut *value }));
        self.state.store(FREE, broken::ordering(Hazard::CacheLeftUnordered, Ordering::Release));
        Some(result)
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// A CPU's own use of its cache against another CPU that empties it: one at a time, and nothing is lost.
    fn one_user_at_a_time() {
        loom::model(|| {
            let cell = Arc::new(TryCell::new(0_u32));
            let theirs = Arc::clone(&cell);
            let other = thread::spawn(move || u32::from(theirs.with(|value| *value += 1).is_some()));
            let mine: u32 = (0..2).map(|_| u32::from(cell.with(|value| *value += 1).is_some())).sum();
            let both = mine + other.join().unwrap();
            assert_eq!(cell.with(|value| *value), Some(both));
            // Both of ours may meet the other's one use; but whoever comes first is never refused.
            assert!(both >= 1, "everybody was refused");
        });
    }

    #[test]
    fn loom_a_gen_01_a_cache_has_one_user_at_a_time() {
        one_user_at_a_time();
    }

    #[test]
    #[should_panic(expected = "Concurrent write accesses")]
    fn loom_a_gen_01_control_a_cache_left_unordered() {
        broken::with(Hazard::CacheLeftUnordered, one_user_at_a_time);
    }
}
