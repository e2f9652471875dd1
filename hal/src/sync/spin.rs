//! [`SpinLock`]: the lock for data that bottom halves and tasks share.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::panic::Location;

use super::rank::{self, Rank};
use super::ticket::Ticket;
use crate::context::NotHardIrq;
use crate::dispatch::BottomHalvesOff;

/// A fair spin lock that keeps bottom halves from running on its CPU while held; interrupts stay on. Taking it needs
/// the token of a bottom half or a task, so a hard interrupt handler cannot.
#[derive(Debug)]
pub struct SpinLock<T: ?Sized> {
    ticket: Ticket,
    rank: Rank,
    data: UnsafeCell<T>,
}

// SAFETY: the lock gives access to the data to one holder at a time; sending the lock sends the data.
unsafe impl<T: ?Sized + Send> Send for SpinLock<T> {}
// SAFETY: sharing the lock lets each CPU have `&mut T` in turn, which needs T: Send only.
unsafe impl<T: ?Sized + Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// A lock of the given rank around `data`.
    pub const fn new(rank: Rank, data: T) -> Self {
        Self { ticket: Ticket::new(), rank, data: UnsafeCell::new(data) }
    }
}

impl<T: ?Sized> SpinLock<T> {
    /// Takes the lock.
    ///
    /// # Panics
    /// In debug and test builds, if a lock of the same or a higher rank is held on this CPU.
    #[inline]
    #[track_caller]
    pub fn lock(&self, _cx: &impl NotHardIrq) -> SpinGuard<'_, T> {
        let off = BottomHalvesOff::new();
        rank::acquire(self.rank, Location::caller());
        self.ticket.lock();
        SpinGuard { lock: self, _off: off }
    }

    /// Takes the lock if it is free.
    ///
    /// # Panics
    /// In debug and test builds, if it is free and a lock of the same or a higher rank is held on this CPU.
    #[inline]
    #[track_caller]
    pub fn try_lock(&self, _cx: &impl NotHardIrq) -> Option<SpinGuard<'_, T>> {
        let off = BottomHalvesOff::new();
        if !self.ticket.try_lock() {
            return None;
        }
        rank::acquire(self.rank, Location::caller());
        Some(SpinGuard { lock: self, _off: off })
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

/// Holds a [`SpinLock`].
pub struct SpinGuard<'a, T: ?Sized> {
    lock: &'a SpinLock<T>,
    // Dropped after `drop` below released the lock: deferred bottom halves run with it free.
    _off: BottomHalvesOff,
}

impl<'a, T: ?Sized> SpinGuard<'a, T> {
    /// The lock that `this` holds.
    pub const fn lock_of(this: &Self) -> &'a SpinLock<T> {
        this.lock
    }
}

impl<T: ?Sized> Deref for SpinGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard is the only holder.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T: ?Sized> DerefMut for SpinGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard is the only holder, and borrowed exclusively.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T: ?Sized> Drop for SpinGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.ticket.unlock();
        rank::release(self.lock.rank);
    }
}
