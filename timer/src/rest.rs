//! Coming to rest: the ways to wait for the end of a run.

use alloc::sync::Arc;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

use undercroft_hal::sync::{self, IrqSpinGuard, IrqSpinLock, Rank, SpinGuard, SpinLock};
use undercroft_hal::{Task, cpu};

use crate::broken::{self, Hazard};
use crate::completion::{Completion, Drained};
use crate::node::Ref;
use crate::outcome::{DrainError, Stopped};
use crate::service;
use crate::wheels::Draining;

/// Begins a drain or close by a task. `Err` with what has begun if the task cannot wait for it.
fn begin(node: &Ref, close: bool) -> Result<Draining, DrainError> {
    let here = cpu::current();
    let draining = service::with(|wheels| wheels.drain_on(node, close, Some(here))).flatten();
    let draining = draining.ok_or(DrainError::NoSuchCpu)?;
    // A CPU does one thing at a time: what is in flight here is below us.
    let below = draining.flight.is_some() && draining.home == here && !broken::is(Hazard::DrainBlind);
    if below { Err(DrainError::InHandler) } else { Ok(draining) }
}

fn wait_for(node: &Ref, flight: u32, cx: &Task) {
    let here = cpu::current();
    cx.wait_until(|| service::with(|wheels| wheels.is_over_for(node, flight, here)).unwrap_or(true));
}

/// Drains or closes, and waits.
pub(crate) fn wait(node: &Ref, close: bool, cx: &Task) -> Result<Stopped, DrainError> {
    let held = sync::any_held();
    let draining = begin(node, close)?;
    if held {
        return Err(DrainError::LockHeld);
    }
    if let Some(flight) = draining.flight {
        wait_for(node, flight, cx);
    }
    Ok(draining.stopped)
}

/// Drains with a lock of the caller's held, which is let go only to wait.
pub(crate) fn wait_with<G: Interlock>(node: &Ref, cx: &Task, guard: G) -> (Result<Stopped, DrainError>, G) {
    let draining = match begin(node, false) {
        Ok(draining) => draining,
        Err(error) => return (Err(error), guard),
    };
    let Some(flight) = draining.flight else { return (Ok(draining.stopped), guard) };
    let lock = guard.release();
    let held = sync::any_held();
    if !held {
        wait_for(node, flight, cx);
    }
    let answer = if held { Err(DrainError::LockHeld) } else { Ok(draining.stopped) };
    (answer, G::retake(lock, cx))
}

pub(crate) fn wait_async(node: &Ref, close: bool, completion: Completion) -> Drained {
    let mut left = Some(completion);
    let back = service::with(|wheels| left.take().and_then(|own| wheels.drain_with(node, close, own.0)));
    match (back, left) {
        (Some(Some(waiter)), _) => Drained::Now(Completion(waiter)),
        (Some(None), _) => Drained::Later,
        (None, Some(completion)) => Drained::Now(completion),
        (None, None) => Drained::Later,
    }
}

/// Closes, with a handle's reference, which whoever waits keeps until the run is over.
pub(crate) fn close_async(node: Ref, mut completion: Completion) -> Drained {
    completion.0.keeps = Some(node.another());
    let drained = wait_async(&node, true, completion);
    let give_back = |node| service::with(|wheels| wheels.release(node));
    give_back(node);
    match drained {
        Drained::Now(mut completion) => {
            if let Some(kept) = completion.0.keeps.take() {
                give_back(kept);
            }
            Drained::Now(completion)
        }
        Drained::Later => Drained::Later,
    }
}

mod sealed {
    pub trait Sealed {}
    impl<T: ?Sized> Sealed for undercroft_hal::sync::SpinGuard<'_, T> {}
    impl<T: ?Sized> Sealed for undercroft_hal::sync::IrqSpinGuard<'_, T> {}
}

/// A guard that a drain can let go and take again: see [`Callout::drain_with`](crate::Callout::drain_with).
pub trait Interlock: sealed::Sealed + Sized {
    #[doc(hidden)]
    type Lock;
    #[doc(hidden)]
    fn release(self) -> Self::Lock;
    #[doc(hidden)]
    fn retake(lock: Self::Lock, cx: &Task) -> Self;
}

impl<'a, T: ?Sized> Interlock for SpinGuard<'a, T> {
    type Lock = &'a SpinLock<T>;
    fn release(self) -> Self::Lock {
        Self::lock_of(&self)
    }
    fn retake(lock: Self::Lock, cx: &Task) -> Self {
        lock.lock(cx)
    }
}

impl<'a, T: ?Sized> Interlock for IrqSpinGuard<'a, T> {
    type Lock = &'a IrqSpinLock<T>;
    fn release(self) -> Self::Lock {
        Self::lock_of(&self)
    }
    fn retake(lock: Self::Lock, _cx: &Task) -> Self {
        lock.lock()
    }
}

/// What a completion and a future share.
struct Shared {
    over: AtomicBool,
    waker: IrqSpinLock<Option<Waker>>,
}

/// A future that is ready when a callout's handler is not in flight any more. The drain or close has begun already.
#[must_use = "a future does not wait by itself"]
pub struct Rest {
    stopped: Stopped,
    /// None: there is nothing to wait for.
    shared: Option<Arc<Shared>>,
}

impl Rest {
    pub(crate) fn new(node: &Ref, close: bool) -> Self {
        let (completion, shared) = Self::pair();
        let mut left = Some(completion);
        let begun = service::with(|wheels| left.take().map(|own| wheels.drain_answered(node, close, own.0)));
        let (stopped, back) = begun.flatten().unwrap_or((Stopped::NotArmed, left.map(|completion| completion.0)));
        Self { stopped, shared: back.is_none().then_some(shared) }
    }

    /// A completion, and the future that it makes ready.
    pub(crate) fn of_completion() -> (Completion, Self) {
        let (completion, shared) = Self::pair();
        (completion, Self { stopped: Stopped::NotArmed, shared: Some(shared) })
    }

    fn pair() -> (Completion, Arc<Shared>) {
        let shared = Arc::new(Shared { over: AtomicBool::new(false), waker: IrqSpinLock::new(Rank::WHEEL, None) });
        let theirs = Arc::clone(&shared);
        let completion = Completion::new(move |_| {
            theirs.over.store(true, Ordering::Release);
            let waker = theirs.waker.lock().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        (completion, shared)
    }
}

impl Future for Rest {
    type Output = Stopped;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Stopped> {
        let Some(shared) = &self.shared else { return Poll::Ready(self.stopped) };
        let old = shared.waker.lock().replace(cx.waker().clone());
        drop(old);
        // Looked at after the waker was left there: whoever is over before that is seen here, and after that wakes.
        if shared.over.load(Ordering::Acquire) { Poll::Ready(self.stopped) } else { Poll::Pending }
    }
}

impl core::fmt::Debug for Rest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Rest").field("stopped", &self.stopped).finish_non_exhaustive()
    }
}
