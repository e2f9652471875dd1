//! [`Guarded`]: callouts that run with a lock of their client's held, and whose stop under that lock is exact.
//!
//! With the lock held, either the handler has returned, or it has not begun and will not for a time that is stopped now. The executor tries
//! the lock; if that is held by somebody the callout waits apart, and others run (T-13). The lock is owned jointly: it is there as long as
//! the handler. It is exclusive; there is no shared mode (T-14).

use alloc::sync::Arc;
use core::fmt;
use core::marker::PhantomData;
use core::ops::DerefMut;

use undercroft_hal::clock::{Duration, Instant};
use undercroft_hal::context::Kind;
use undercroft_hal::sync::{IrqSpinGuard, IrqSpinLock, Rank, SpinGuard, SpinLock};
use undercroft_hal::{BottomHalf, Task};

use crate::broken::{self, Hazard};
use crate::callout::Callout;
use crate::completion::{Completion, Drained};
use crate::expiry::Expiry;
use crate::level::{Level, Token};
use crate::next::Next;
use crate::node::{Flight, Gate, Handler, Ran};
use crate::outcome::{DrainError, StartError, Started, Stopped};
use crate::rest::Rest;
use crate::service;

mod sealed {
    pub trait Sealed {}
    impl<T> Sealed for undercroft_hal::sync::SpinLock<T> {}
    impl<T> Sealed for undercroft_hal::sync::IrqSpinLock<T> {}
}

/// A lock that a callout can run with.
pub trait Lock: sealed::Sealed + Send + Sync + 'static {
    /// What it protects.
    type Data: 'static;
    /// Proof that it is held.
    type Guard<'a>: DerefMut<Target = Self::Data>;
    #[doc(hidden)]
    fn rank(&self) -> Rank;
    #[doc(hidden)]
    fn is_held_by(&self, guard: &Self::Guard<'_>) -> bool;
}

/// A lock that may be taken at level `L`: any with interrupts off, a [`SpinLock`] in bottom half and task only.
pub trait LockAt<L: Level>: Lock {
    #[doc(hidden)]
    fn try_lock<'a>(&'a self, token: &L::Token) -> Option<Self::Guard<'a>>;
}

impl<T: Send + 'static> Lock for IrqSpinLock<T> {
    type Data = T;
    type Guard<'a> = IrqSpinGuard<'a, T>;
    fn rank(&self) -> Rank {
        self.rank()
    }
    fn is_held_by(&self, guard: &IrqSpinGuard<'_, T>) -> bool {
        core::ptr::eq(self, IrqSpinGuard::lock_of(guard))
    }
}

impl<L: Level, T: Send + 'static> LockAt<L> for IrqSpinLock<T> {
    fn try_lock<'a>(&'a self, _token: &L::Token) -> Option<IrqSpinGuard<'a, T>> {
        self.try_lock()
    }
}

impl<T: Send + 'static> Lock for SpinLock<T> {
    type Data = T;
    type Guard<'a> = SpinGuard<'a, T>;
    fn rank(&self) -> Rank {
        self.rank()
    }
    fn is_held_by(&self, guard: &SpinGuard<'_, T>) -> bool {
        core::ptr::eq(self, SpinGuard::lock_of(guard))
    }
}

impl<T: Send + 'static> LockAt<BottomHalf> for SpinLock<T> {
    fn try_lock<'a>(&'a self, token: &BottomHalf) -> Option<SpinGuard<'a, T>> {
        self.try_lock(token)
    }
}

impl<T: Send + 'static> LockAt<Task> for SpinLock<T> {
    fn try_lock<'a>(&'a self, token: &<Task as Level>::Token) -> Option<SpinGuard<'a, T>> {
        self.try_lock(token)
    }
}

/// Why a callout was not bound to a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindError {
    /// The lock's rank is not below [`Rank::WHEEL`], whose locks are taken while it is held.
    Rank,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the lock's rank is not below the callout wheel's")
    }
}

impl core::error::Error for BindError {}

/// The guard is another lock's: nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongLock;

impl fmt::Display for WrongLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the guard is not of the lock that the callout is bound to")
    }
}

impl core::error::Error for WrongLock {}

struct Bound<L, K, F> {
    lock: Arc<K>,
    handler: F,
    _level: PhantomData<fn() -> L>,
}

impl<L, K, F, N> Handler for Bound<L, K, F>
where
    L: Level,
    K: LockAt<L>,
    F: FnMut(&L::Token, &mut K::Data, &Expiry) -> N + Send + 'static,
    N: Into<Next>,
{
    const KIND: Kind = L::KIND;
    const BOUND: bool = true;

    fn run(&mut self, token: &Token<'_>, expiry: &Expiry, flight: &mut Flight, gate: &mut dyn Gate) -> Ran {
        let Some(token) = L::of(token) else { return Ran::Void };
        let mut taken = self.lock.try_lock(token);
        let mut patience = 1000;
        while taken.is_none() && broken::is(Hazard::WaitsForLock) {
            undercroft_hal::cpu::relax();
            patience -= 1;
            assert!(patience > 0, "an executor waits for a lock");
            taken = self.lock.try_lock(token);
        }
        let Some(mut guard) = taken else { return Ran::Contended };
        // Asked with the lock held: who stopped it did so before, with the lock, or will find it running.
        if !gate.enter(flight) {
            return Ran::Void;
        }
        let next = (self.handler)(token, &mut guard, expiry).into();
        gate.leave(flight, next);
        Ran::Left
    }
}

/// A callout that is bound to a lock of type `K`: its handler is given what the lock protects.
pub struct Guarded<K: LockAt<L>, L: Level = BottomHalf> {
    lock: Arc<K>,
    callout: Callout<L>,
}

impl<K: LockAt<L>, L: Level> Guarded<K, L> {
    /// Makes a callout for CPU `home` that runs with `lock` held, as [`Callout::new`].
    ///
    /// # Errors
    /// [`BindError`]: the lock's rank is not below [`Rank::WHEEL`].
    pub fn new<N: Into<Next>>(
        home: usize,
        lock: Arc<K>,
        handler: impl FnMut(&L::Token, &mut K::Data, &Expiry) -> N + Send + 'static,
    ) -> Result<Self, BindError> {
        if lock.rank() >= Rank::WHEEL {
            return Err(BindError::Rank);
        }
        let bound = Bound::<L, K, _> { lock: Arc::clone(&lock), handler, _level: PhantomData };
        Ok(Self { lock, callout: Callout::with_handler(home, bound) })
    }

    /// See [`Callout::slack`].
    #[must_use]
    pub fn slack(self, slack: Duration) -> Self {
        Self { callout: self.callout.slack(slack), ..self }
    }

    /// See [`Callout::deferrable`].
    #[must_use]
    pub fn deferrable(self) -> Self {
        Self { callout: self.callout.deferrable(), ..self }
    }

    /// The lock.
    pub fn bound_to(&self) -> &K {
        &self.lock
    }

    /// See [`Callout::start`]. While the executor waits for the lock, a start replaces what it waits with.
    ///
    /// # Errors
    /// As [`Callout::start`].
    pub fn start(&self, delay: Duration) -> Result<Started, StartError> {
        self.callout.start(delay)
    }

    /// See [`Callout::start_at`].
    ///
    /// # Errors
    /// As [`Callout::start`].
    pub fn start_at(&self, at: Instant) -> Result<Started, StartError> {
        self.callout.start_at(at)
    }

    /// See [`Callout::start_on`].
    ///
    /// # Errors
    /// As [`Callout::start_on`].
    pub fn start_on(&self, cpu: usize, at: Instant) -> Result<Started, StartError> {
        self.callout.start_on(cpu, at)
    }

    /// See [`Callout::start_here`].
    ///
    /// # Errors
    /// As [`Callout::start_on`].
    pub fn start_here(&self, at: Instant) -> Result<Started, StartError> {
        self.callout.start_here(at)
    }

    /// See [`Callout::start_within`].
    ///
    /// # Errors
    /// As [`Callout::start`].
    pub fn start_within(&self, at: Instant, slack: Duration) -> Result<Started, StartError> {
        self.callout.start_within(at, slack)
    }

    /// See [`Callout::start_if_armed`].
    ///
    /// # Errors
    /// As [`Callout::start`].
    pub fn start_if_armed(&self, at: Instant) -> Result<Option<Started>, StartError> {
        self.callout.start_if_armed(at)
    }

    /// See [`Callout::start_if_sooner`].
    ///
    /// # Errors
    /// As [`Callout::start`].
    pub fn start_if_sooner(&self, at: Instant) -> Result<Option<Started>, StartError> {
        self.callout.start_if_sooner(at)
    }

    /// Disarms it, exactly: the handler is not running, and does not run before the next start. The guard is the proof.
    ///
    /// # Errors
    /// [`WrongLock`] for a guard of another lock.
    pub fn stop(&self, guard: &mut K::Guard<'_>) -> Result<Stopped, WrongLock> {
        if !self.lock.is_held_by(guard) {
            return Err(WrongLock);
        }
        Ok(service::with(|wheels| wheels.stop(self.callout.node(), true)).unwrap_or(Stopped::NotArmed))
    }

    /// See [`Callout::is_armed`].
    pub fn is_armed(&self) -> bool {
        self.callout.is_armed()
    }

    /// See [`Callout::is_running`].
    pub fn is_running(&self) -> bool {
        self.callout.is_running()
    }

    /// See [`Callout::when`].
    pub fn when(&self) -> Option<Instant> {
        self.callout.when()
    }

    /// See [`Callout::drain`]. Exclusive: nobody holds a guard that was borrowed from this (T-42).
    ///
    /// # Errors
    /// As [`Callout::drain`].
    pub fn drain(&mut self, cx: &Task) -> Result<Stopped, DrainError> {
        self.callout.drain(cx)
    }

    /// See [`Callout::drain_async`].
    pub fn drain_async(&self, completion: Completion) -> Drained {
        self.callout.drain_async(completion)
    }

    /// See [`Callout::drained`].
    pub fn drained(&mut self) -> Rest {
        self.callout.drained()
    }

    /// See [`Callout::close`].
    ///
    /// # Errors
    /// As [`Callout::close`].
    pub fn close(self, cx: &Task) -> Result<(), DrainError> {
        self.callout.close(cx)
    }

    /// See [`Callout::close_async`].
    pub fn close_async(self, completion: Completion) -> Drained {
        self.callout.close_async(completion)
    }

    /// See [`Callout::closed`].
    pub fn closed(self) -> Rest {
        self.callout.closed()
    }

    /// The callout itself, for a [`Scope`](crate::Scope).
    pub(crate) const fn callout(&self) -> &Callout<L> {
        &self.callout
    }
}

impl<K: LockAt<L>, L: Level> fmt::Debug for Guarded<K, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("level", &L::KIND).finish_non_exhaustive()
    }
}
