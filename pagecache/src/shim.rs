//! The atomics and the lock that a volume is made of: core's and the hal's in a program; under shuttle, with a point at which another CPU may go on
//! before each use.

#[cfg(not(shuttle))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
#[cfg(not(shuttle))]
pub(crate) use undercroft_hal::sync::SpinLock;

#[cfg(shuttle)]
pub(crate) use self::model::SpinLock;
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

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
