//! Cells that a thread has to itself by agreement: with loom, the agreement is checked.
//!
//! UNSAFETY: [`Exclusive`] hands out `&mut` to what its users promise to be alone with.

/// A value that one executor at a time has to itself.
pub(crate) struct Exclusive<T> {
    #[cfg(not(loom))]
    value: core::cell::UnsafeCell<T>,
    #[cfg(loom)]
    value: loom::cell::UnsafeCell<T>,
}

impl<T> Exclusive<T> {
    pub(crate) fn new(value: T) -> Self {
        #[cfg(not(loom))]
        return Self { value: core::cell::UnsafeCell::new(value) };
        #[cfg(loom)]
        return Self { value: loom::cell::UnsafeCell::new(value) };
    }

    /// Calls `f` with the value.
    ///
    /// # Safety
    /// Nobody else is in a call of this meanwhile, and whoever was before happened before.
    pub(crate) unsafe fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        #[cfg(not(loom))]
        // SAFETY: alone, by the caller's contract.
        return f(unsafe { &mut *self.value.get() });
        #[cfg(loom)]
        // SAFETY: as above; loom reports whoever is not.
        return self.value.with_mut(|value| f(unsafe { &mut *value }));
    }
}

/// Tells loom of accesses to what lies beside it: a read or write without the lock that protects it is a data race.
#[derive(Default)]
pub(crate) struct Witness {
    #[cfg(loom)]
    cell: loom::cell::UnsafeCell<()>,
}

impl Witness {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(loom)]
            cell: loom::cell::UnsafeCell::new(()),
        }
    }

    /// What it lies beside is used now.
    #[inline(always)]
    pub(crate) fn used(&self) {
        #[cfg(loom)]
        self.cell.with_mut(|_| ());
    }
}
