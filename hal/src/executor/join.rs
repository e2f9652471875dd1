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

/// Couples a future with a handle to its result.
pub(super) fn pair<F: Future>(future: F) -> (JoinHandle<F::Output>, impl Future<Output = ()>) {
    let shared = Arc::new(IrqSpinLock::new(Rank::QUEUE, Shared { value: None, waiter: None }));
    let handle = JoinHandle { shared: Arc::clone(&shared) };
    let run = async move {
        let value = future.await;
        let waiter = {
            let mut shared = shared.lock();
            shared.value = Some(value);
            shared.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    };
    (handle, run)
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
