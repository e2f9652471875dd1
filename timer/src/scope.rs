//! [`Scope`]: all of a driver's callouts, closed at once.
//!
//! One count for all, above the runs in flight and outside every lock of theirs: it is the scope's own, and whoever brings it to zero does not
//! touch the callouts any more (T-02, T-03).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::{BottomHalf, Task};

use crate::callout::Callout;
use crate::completion::{Completion, Waiter, What};
use crate::expiry::Expiry;
use crate::guarded::{Guarded, LockAt};
use crate::level::Level;
use crate::next::Next;
use crate::node::Ref;
use crate::outcome::DrainError;
use crate::rest::{self, Rest};
use crate::service;

/// What one close of all shares.
pub(crate) struct Closing {
    left: AtomicUsize,
    /// Runs when all have come to rest.
    done: IrqSpinLock<Option<Box<Waiter>>>,
    /// What a scope that is closed in a hard interrupt cannot free there.
    entries: IrqSpinLock<Vec<Entry>>,
}

impl Closing {
    /// One of them has come to rest.
    pub(crate) fn one_less(&self, cx: &BottomHalf) {
        // Release: what came to rest did so before; acquire: for all of them, in whoever is last.
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let done = self.done.lock().take();
            if let Some(done) = done {
                done.run(cx);
            }
        }
    }
}

struct Entry {
    node: Option<Ref>,
    waiter: Option<Box<Waiter>>,
}

/// Owns the callouts of a driver: when it is closed, or goes, they are. Their handles, which the driver keeps, refuse to start then.
pub struct Scope {
    closing: Option<(Arc<Closing>, Box<Waiter>)>,
}

impl Default for Scope {
    fn default() -> Self {
        Self::new()
    }
}

impl Scope {
    /// A scope without callouts. Allocates: bottom half or task.
    pub fn new() -> Self {
        service::make();
        let closing = Arc::new(Closing {
            left: AtomicUsize::new(0),
            done: IrqSpinLock::new(Rank::new(38), None),
            entries: IrqSpinLock::new(Rank::new(38), Vec::new()),
        });
        let last = Waiter::new(What::Count(Arc::clone(&closing)));
        Self { closing: Some((closing, last)) }
    }

    /// Makes a callout in this scope, as [`Callout::new`]. Allocates: bottom half or task.
    pub fn callout<L: Level, N: Into<Next>>(
        &mut self,
        home: usize,
        handler: impl FnMut(&L::Token, &Expiry) -> N + Send + 'static,
    ) -> Callout<L> {
        let callout = Callout::<L>::new(home, handler);
        self.add(&callout);
        callout
    }

    /// Takes a callout that was made elsewhere into this scope. Allocates: bottom half or task.
    pub fn add<L: Level>(&mut self, callout: &Callout<L>) {
        let Some((closing, _)) = &self.closing else { return };
        let entry =
            Entry { node: Some(callout.node().another()), waiter: Some(Waiter::new(What::Count(Arc::clone(closing)))) };
        // Nothing may allocate under a lock: the list grows outside.
        let mut entries = core::mem::take(&mut *closing.entries.lock());
        entries.push(entry);
        *closing.entries.lock() = entries;
    }

    /// Takes a lock-bound callout into this scope, as [`Scope::add`].
    pub fn add_guarded<K: LockAt<L>, L: Level>(&mut self, guarded: &Guarded<K, L>) {
        self.add(guarded.callout());
    }

    /// Closes all callouts and waits until none of their handlers is in flight.
    ///
    /// # Errors
    /// [`DrainError`], when waiting might never end. They are closed all the same.
    pub fn close_all(mut self, cx: &Task) -> Result<(), DrainError> {
        let Some((closing, last)) = self.closing.take() else { return Ok(()) };
        let mut entries = core::mem::take(&mut *closing.entries.lock());
        drop(last);
        let mut answer = Ok(());
        // All are barred before the first is waited for: none starts another that is closed already.
        for entry in &entries {
            if let Some(node) = &entry.node {
                service::with(|wheels| wheels.drain_on(node, true, None));
            }
        }
        for entry in &mut entries {
            let Some(node) = entry.node.take() else { continue };
            answer = answer.and(rest::wait(&node, true, cx).map(|_| ()));
            service::with(|wheels| wheels.release(node));
        }
        answer
    }

    /// Closes all callouts; `completion` runs, as a bottom half, when none of their handlers is in flight. Any context.
    pub fn close_all_async(mut self, completion: Completion) {
        self.begin(Some(completion));
    }

    /// Closes all callouts now; the future is ready when none of their handlers is in flight. Allocates: bottom half or task.
    pub fn closed(self) -> Rest {
        let (completion, rest) = Rest::of_completion();
        self.close_all_async(completion);
        rest
    }

    fn begin(&mut self, completion: Option<Completion>) {
        let Some((closing, last)) = self.closing.take() else { return };
        *closing.done.lock() = completion.map(|completion| completion.0);
        let mut entries = core::mem::take(&mut *closing.entries.lock());
        // One more than there are: nobody is last before all have been asked.
        closing.left.store(entries.len() + 1, Ordering::Release);
        service::with(|wheels| {
            for entry in &mut entries {
                let (Some(node), Some(mut waiter)) = (entry.node.take(), entry.waiter.take()) else { continue };
                waiter.keeps = Some(node.another());
                if let Some(back) = wheels.drain_with(&node, true, waiter) {
                    wheels.complete(back);
                }
                wheels.release(node);
            }
            // What is left of the list is freed with the rest, where that is allowed.
            *closing.entries.lock() = entries;
            // Ours is not the last reference: this one goes to a bottom half.
            drop(closing);
            wheels.complete(last);
        });
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.begin(None);
    }
}

impl core::fmt::Debug for Scope {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}
