//! Completions: what runs once when a callout has come to rest.
//!
//! Made beforehand, so that asking for one allocates nothing and works in any context. Each is its own member of the callout's list, so
//! several drains of one callout do not know of each other. It runs as a bottom half with no lock held, after the executor's last touch of
//! the callout.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use undercroft_hal::BottomHalf;

use crate::node::Ref;
use crate::scope::Closing;

type Run = dyn FnOnce(&BottomHalf) + Send;

/// Those who wait for the end of a run, by a list through themselves.
pub(crate) type Waiters = Option<Box<Waiter>>;

/// One who waits.
pub(crate) struct Waiter {
    next: Waiters,
    /// Others that are to be told with it.
    others: Waiters,
    pub(crate) what: What,
    /// What it keeps alive: given back before it runs.
    pub(crate) keeps: Option<Ref>,
}

/// What it waits for the end for.
pub(crate) enum What {
    /// To run this.
    Run(Box<Run>),
    /// A model's: it has no contexts.
    #[cfg(test)]
    Test(Box<dyn FnOnce() + Send>),
    /// To count down a scope's closing.
    Count(Arc<Closing>),
}

impl Waiter {
    pub(crate) fn new(what: What) -> Box<Self> {
        Box::new(Self { next: None, others: None, what, keeps: None })
    }
}

/// Adds one to a list.
pub(crate) fn push(list: &mut Waiters, mut waiter: Box<Waiter>) {
    waiter.next = list.take();
    *list = Some(waiter);
}

/// Takes one off a list.
pub(crate) fn pop(list: &mut Waiters) -> Waiters {
    let mut waiter = list.take()?;
    *list = waiter.next.take();
    push_all(list, waiter.others.take());
    Some(waiter)
}

/// Adds all of a callout's list to another, at once however many they are.
pub(crate) fn push_all(to: &mut Waiters, from: Waiters) {
    if let Some(mut first) = from {
        debug_assert!(first.others.is_none(), "a list of lists");
        first.others = core::mem::replace(&mut first.next, to.take());
        *to = Some(first);
    }
}

/// A function to be called once, when a callout is at rest. With its own context: what it captures.
#[must_use = "a completion that nobody is given does not run"]
pub struct Completion(pub(crate) Box<Waiter>);

impl Completion {
    /// Makes one. Allocates: bottom half or task. Dropped without being used, it frees what it captured without running.
    pub fn new(run: impl FnOnce(&BottomHalf) + Send + 'static) -> Self {
        Self(Waiter::new(What::Run(Box::new(run))))
    }

    /// Calls the function here and now, where there is nothing to wait for.
    pub fn run(self, cx: &BottomHalf) {
        self.0.run(cx);
    }
}

impl Waiter {
    pub(crate) fn run(self, cx: &BottomHalf) {
        match self.what {
            What::Run(run) => run(cx),
            What::Count(closing) => closing.one_less(cx),
            #[cfg(test)]
            What::Test(run) => run(),
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").finish_non_exhaustive()
    }
}

/// What became of a completion.
#[derive(Debug)]
#[must_use = "a completion that is given back will not run"]
pub enum Drained {
    /// The callout is at rest now: the completion will not run, and is given back.
    Now(Completion),
    /// A run is in flight: the completion runs once, when that is over.
    Later,
}
