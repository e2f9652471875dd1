//! The atomics and the lock that a volume is made of: core's and the hal's in a program; under shuttle, with a point at which another CPU may go on
//! before each use.

#[cfg(all(test, not(shuttle)))]
pub(crate) use self::measured::{SpinLock, work};
#[cfg(not(shuttle))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
#[cfg(all(not(test), not(shuttle)))]
pub(crate) use undercroft_hal::sync::SpinLock;

#[cfg(shuttle)]
pub(crate) use self::model::SpinLock;
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Something is done under a lock, to one page: tests count that (A-PC-26).
#[cfg(any(not(test), shuttle))]
#[inline(always)]
pub(crate) const fn work() {}

/// The hal's lock, and what is done while it is held.
#[cfg(all(test, not(shuttle)))]
pub(crate) mod measured {
    use std::cell::Cell;
    use std::ops::{Deref, DerefMut};

    use undercroft_hal::context::NotHardIrq;
    use undercroft_hal::sync::{Rank, SpinGuard};

    std::thread_local! {
        static NOW: Cell<u32> = const { Cell::new(0) };
        static MOST: Cell<u32> = const { Cell::new(0) };
    }

    pub(crate) struct SpinLock<T>(undercroft_hal::sync::SpinLock<T>);

    pub(crate) struct Guard<'a, T>(SpinGuard<'a, T>);

    impl<T> SpinLock<T> {
        pub(crate) const fn new(rank: Rank, data: T) -> Self {
            Self(undercroft_hal::sync::SpinLock::new(rank, data))
        }

        #[track_caller]
        pub(crate) fn lock(&self, cx: &impl NotHardIrq) -> Guard<'_, T> {
            let guard = self.0.lock(cx);
            NOW.set(0);
            Guard(guard)
        }
    }

    impl<T> Deref for Guard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            &self.0
        }
    }

    impl<T> DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.0
        }
    }

    impl<T> Drop for Guard<'_, T> {
        fn drop(&mut self) {
            MOST.set(MOST.get().max(NOW.get()));
        }
    }

    pub(crate) fn work() {
        NOW.set(NOW.get() + 1);
    }

    /// The most that was done in one hold since the last call.
    pub(crate) fn most() -> u32 {
        MOST.replace(0)
    }
}

#[cfg(shuttle)]
mod model {
    use undercroft_hal::context::NotHardIrq;
    use undercroft_hal::sync::{Rank, SpinGuard};

    /// The hal's lock, whose own atomics are not the model's.
    pub(crate) struct SpinLock<T>(undercroft_hal::sync::SpinLock<T>);

    impl<T> SpinLock<T> {
        pub(crate) const fn new(rank: Rank, data: T) -> Self {
            Self(undercroft_hal::sync::SpinLock::new(rank, data))
        }

        #[track_caller]
        pub(crate) fn lock(&self, cx: &impl NotHardIrq) -> SpinGuard<'_, T> {
            shuttle::thread::yield_now();
            self.0.lock(cx)
        }
    }
}
