//! What the service is made of: the hal's lock and core's atomics in a program, loom's or shuttle's in a model.
//!
//! The code above this module is the same in all three worlds. In a model there are no interrupts: an interrupt is a thread.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use core::sync::atomic::{AtomicU32, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicU32, Ordering};

#[cfg(any(loom, shuttle))]
pub(crate) use model::{IrqOff, Lock, LockGuard};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use program::{IrqOff, Lock, LockGuard};

#[cfg(not(any(loom, shuttle)))]
mod program {
    use undercroft_hal::cpu::IrqGuard;
    use undercroft_hal::sync::{IrqSpinGuard, IrqSpinLock, Rank};

    /// W, the lock of one CPU's wheel.
    pub(crate) struct Lock<T>(IrqSpinLock<T>);
    pub(crate) type LockGuard<'a, T> = IrqSpinGuard<'a, T>;

    impl<T> Lock<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(IrqSpinLock::new(Rank::WHEEL, value))
        }

        #[inline]
        #[track_caller]
        pub(crate) fn lock(&self) -> LockGuard<'_, T> {
            self.0.lock()
        }
    }

    /// Keeps interrupts off on this CPU.
    pub(crate) struct IrqOff(#[expect(dead_code, reason = "held, not used")] IrqGuard);

    impl IrqOff {
        #[inline]
        pub(crate) fn new() -> Self {
            Self(IrqGuard::new())
        }
    }
}

#[cfg(any(loom, shuttle))]
mod model {
    #[cfg(loom)]
    use loom::sync::{Mutex, MutexGuard};
    #[cfg(shuttle)]
    use shuttle::sync::{Mutex, MutexGuard};

    pub(crate) struct Lock<T>(Mutex<T>);
    pub(crate) type LockGuard<'a, T> = MutexGuard<'a, T>;

    impl<T> Lock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> LockGuard<'_, T> {
            match self.0.lock() {
                Ok(guard) => guard,
                Err(poisoned) => poisoned.into_inner(),
            }
        }
    }

    pub(crate) struct IrqOff;

    impl IrqOff {
        pub(crate) fn new() -> Self {
            Self
        }
    }
}
