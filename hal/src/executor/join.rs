//! Waiting for a spawned task's result.

use alloc::sync::Arc;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use crate::sync::{IrqSpinLock, Rank};

struct Shared<T> {
    value: Option<T>,
    waiter: Option<Waker>,
}

/// A future for the result of a spawned task. Dropping it lets the task run on alone.
pub struct JoinHandle<T> {
    shared: Arc<IrqSpinLock<Shared<T>>>,
}

/// The other end of a [`JoinHandle`].
pub(super) struct Promise<T> {
    shared: Arc<IrqSpinLock<Shared<T>>>,
}

impl<T> Promise<T> {
    /// Hands the result over.
    pub(super) fn keep(self, value: T) {
        let waiter = {
            let mut shared = self.shared.lock();
            shared.value = Some(value);
            shared.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

/// A handle and its promise.
pub(super) fn promise<T>() -> (JoinHandle<T>, Promise<T>) {
    let shared = Arc::new(IrqSpinLock::new(Rank::QUEUE, Shared { value: None, waiter: None }));
    (JoinHandle { shared: Arc::clone(&shared) }, Promise { shared })
}

/// Couples a future with a handle to its result.
pub(super) fn pair<F: Future>(future: F) -> (JoinHandle<F::Output>, impl Future<Output = ()>) {
    let (handle, promise) = promise();
    (handle, async move { promise.keep(future.await) })
}

impl<T> JoinHandle<T> {
    /// The result, if the task is done and it was not taken yet.
    pub fn try_take(&self) -> Option<T> {
        self.shared.lock().value.take()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Cloned before the lock is taken: another executor's waker may allocate.
        let waker = cx.waker().clone();
        let mut shared = self.shared.lock();
        let old = match shared.value.take() {
            Some(value) => return Poll::Ready(value),
            None => shared.waiter.replace(waker),
        };
        drop(shared);
        drop(old);
        Poll::Pending
    }
}
