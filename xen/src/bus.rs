//! The states by which the two ends of a device come together and part (`public/io/xenbus.h`), in xenstore.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use undercroft_hal::{Instant, Task, cpu};

use crate::store::{Store, StoreError, Transaction, Watch};
use crate::wait;

/// A state of an end. Open: another end may say anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State(pub u64);

impl State {
    /// Not there.
    pub const UNKNOWN: Self = Self(0);
    /// Coming up.
    pub const INITIALISING: Self = Self(1);
    /// Ready to be told of the other end's rings.
    pub const INIT_WAIT: Self = Self(2);
    /// Has told of its own.
    pub const INITIALISED: Self = Self(3);
    /// In use.
    pub const CONNECTED: Self = Self(4);
    /// Wants to end.
    pub const CLOSING: Self = Self(5);
    /// Has ended.
    pub const CLOSED: Self = Self(6);
}

/// The other end of a device.
pub(crate) struct Backend {
    store: Arc<Store>,
    /// Its place in xenstore.
    pub(crate) path: String,
    changed: Arc<AtomicBool>,
    watch: Option<Watch>,
}

impl Backend {
    /// The end at `path`, whose state is watched from now on. `on_change` runs in a task as well.
    pub(crate) fn new(
        cx: &Task,
        store: &Arc<Store>,
        path: String,
        on_change: impl Fn(&Task) + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let changed = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&changed);
        let watched = format!("{path}/state");
        let watch = store.watch(cx, &watched, cpu::current(), move |cx| {
            seen.store(true, Ordering::Release);
            on_change(cx);
        })?;
        Ok(Self { store: Arc::clone(store), path, changed, watch: Some(watch) })
    }

    /// Its state now. One that is not there is [`State::UNKNOWN`].
    pub(crate) fn state(&self, cx: &Task) -> Result<State, StoreError> {
        state(cx, &self.store, &self.path)
    }

    /// Waits until its state is one of `wanted`, or `patience` is over. Returns the last one seen.
    pub(crate) fn wait_for(&self, cx: &Task, wanted: &[State], patience: Duration) -> Result<State, StoreError> {
        let deadline = Instant::now() + patience;
        loop {
            self.changed.store(false, Ordering::Release);
            let state = self.state(cx)?;
            if wanted.contains(&state) || Instant::now() >= deadline {
                return Ok(state);
            }
            wait::until(cx, deadline, || self.changed.load(Ordering::Acquire));
        }
    }

    /// Ends the watch.
    pub(crate) fn unwatch(&mut self, cx: &Task) {
        if let Some(watch) = self.watch.take()
            && let Err(error) = watch.end(cx)
        {
            log::warn!("{}: the watch was not taken back: {error}", self.path);
        }
    }
}

/// The state at a path; a path that is gone is [`State::UNKNOWN`].
pub(crate) fn state(cx: &Task, store: &Store, path: &str) -> Result<State, StoreError> {
    match store.read_number(cx, Transaction::NONE, &format!("{path}/state")) {
        Ok(state) => Ok(State(state)),
        Err(StoreError::NotFound) => Ok(State::UNKNOWN),
        Err(error) => Err(error),
    }
}
