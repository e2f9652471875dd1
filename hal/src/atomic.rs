//! The atomics that this crate's shared structures are made of: core's in a program, loom's or shuttle's in a model.
//!
//! Loom explores every C11 outcome of small protocols (`--cfg loom`); shuttle explores schedules of larger ones (`--cfg shuttle`, all
//! accesses sequentially consistent). The code above this module is the same in all three worlds.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Declares a constructor that is `const` in a program; the models' atomics cannot be made in a const.
macro_rules! const_unless_model {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block) => {
        $(#[$meta])*
        #[cfg(not(any(loom, shuttle)))]
        $vis const fn $name($($arg: $ty),*) -> $ret $body
        $(#[$meta])*
        #[cfg(any(loom, shuttle))]
        $vis fn $name($($arg: $ty),*) -> $ret $body
    };
}
pub(crate) use const_unless_model;

/// A place between two atomic steps of an operation: in tests, where an interrupt may strike (see [`crate::inject`]).
#[inline(always)]
pub(crate) fn step() {
    #[cfg(all(test, not(any(loom, shuttle))))]
    crate::inject::step();
}

/// A cell that one side owns at a time; loom checks that it does.
#[cfg(all(test, not(shuttle)))]
#[derive(Debug)]
pub(crate) struct Owned<T> {
    #[cfg(not(loom))]
    cell: core::cell::UnsafeCell<T>,
    #[cfg(loom)]
    cell: loom::cell::UnsafeCell<T>,
}

#[cfg(all(test, not(shuttle)))]
impl<T> Owned<T> {
    const_unless_model! {
        pub(crate) fn new(value: T) -> Self {
            #[cfg(not(loom))]
            { Self { cell: core::cell::UnsafeCell::new(value) } }
            #[cfg(loom)]
            { Self { cell: loom::cell::UnsafeCell::new(value) } }
        }
    }

    /// Calls `f` with a pointer to the value.
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        #[cfg(not(loom))]
        return f(self.cell.get());
        #[cfg(loom)]
        return self.cell.with_mut(f);
    }
}
