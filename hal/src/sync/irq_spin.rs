//! [`IrqSpinLock`]: the lock for data that hard interrupt handlers share.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::panic::Location;

use super::rank::{self, Rank};
use super::ticket::Ticket;
use crate::cpu::IrqGuard;

/// A fair spin lock that turns interrupts off on its CPU while held. May be taken in any context.
#[derive(Debug)]
pub struct IrqSpinLock<T: ?Sized> {
    ticket: Ticket,
    rank: Rank,
    data: UnsafeCell<T>,
}

// SAFETY: the lock gives access to the data to one holder at a time; sending the lock sends the data.
unsafe impl<T: ?Sized + Send> Send for IrqSpinLock<T> {}
// SAFETY: sharing the lock lets each CPU have `&mut T` in turn, which needs T: Send only.
unsafe impl<T: ?Sized + Send> Sync for IrqSpinLock<T> {}

impl<T> IrqSpinLock<T> {
    /// A lock of the given rank around `data`.
    pub const fn new(rank: Rank, data: T) -> Self {
        Self { ticket: Ticket::new(), rank, data: UnsafeCell::new(data) }
    }

    /// The data, when the lock is not needed any more.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized> IrqSpinLock<T> {
    /// Takes the lock, with interrupts off until the guard goes.
    ///
    /// # Panics
    /// In debug and test builds, if a lock of the same or a higher rank is held on this CPU.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> IrqSpinGuard<'_, T> {
        let irq = IrqGuard::new();
        rank::acquire(self.rank, Location::caller());
        self.ticket.lock();
        IrqSpinGuard { lock: self, _irq: irq }
    }

    /// Takes the lock if it is free.
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Option<IrqSpinGuard<'_, T>> {
        let irq = IrqGuard::new();
        if !self.ticket.try_lock() {
            return None;
        }
        rank::acquire(self.rank, Location::caller());
        Some(IrqSpinGuard { lock: self, _irq: irq })
    }

    /// Its place in the order.
    pub const fn rank(&self) -> Rank {
        self.rank
    }

    /// The data, by exclusive borrow: no lock is needed.
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }
}

/// Holds an [`IrqSpinLock`].
pub struct IrqSpinGuard<'a, T: ?Sized> {
    lock: &'a IrqSpinLock<T>,
    // Dropped after `drop` below released the lock: interrupts come back last.
    _irq: IrqGuard,
}

impl<'a, T: ?Sized> IrqSpinGuard<'a, T> {
    /// The lock that `this` holds.
    pub const fn lock_of(this: &Self) -> &'a IrqSpinLock<T> {
        this.lock
    }
}

impl<T: ?Sized> Deref for IrqSpinGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard is the only holder.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T: ?Sized> DerefMut for IrqSpinGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard is the only holder, and borrowed exclusively.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T: ?Sized> Drop for IrqSpinGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.ticket.unlock();
        rank::release(self.lock.rank);
    }
}
