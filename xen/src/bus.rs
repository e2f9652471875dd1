//! The states by which the two ends of a device come together and part (`public/io/xenbus.h`), in xenstore.

use alloc::format;
use alloc::sync::Arc;
use core::future::poll_fn;
use core::task::{Poll, Waker};
use core::time::Duration;

use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::{BottomHalf, Instant, Task, cpu};
use undercroft_timer::{Callout, Expiry};

use crate::store::{Store, StoreError, Watch};

const NEWS: Rank = Rank::new(36);

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

/// That a state may have changed: for one task that waits.
pub(crate) struct News(IrqSpinLock<Flags>);

#[derive(Default)]
struct Flags {
    has_changed: bool,
    waker: Option<Waker>,
}

impl News {
    pub(crate) fn new() -> Self {
        Self(IrqSpinLock::new(NEWS, Flags::default()))
    }

    /// There are some. Any context.
    pub(crate) fn tell(&self) {
        let waker = {
            let mut flags = self.0.lock();
            flags.has_changed = true;
            flags.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until there are some that were not waited for before.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| {
            let mut flags = self.0.lock();
            if core::mem::take(&mut flags.has_changed) {
                return Poll::Ready(());
            }
            let before = flags.waker.replace(context.waker().clone());
            drop(flags);
            drop(before);
            Poll::Pending
        })
        .await;
    }

    /// As [`News::wait`], until `deadline` at the latest.
    pub(crate) async fn wait_until(self: &Arc<Self>, deadline: Instant) {
        let late = Arc::clone(self);
        let alarm = Callout::<BottomHalf>::new(cpu::current(), move |_: &BottomHalf, _: &Expiry| late.tell());
        if alarm.start_at(deadline).is_ok() {
            self.wait().await;
        }
    }
}

/// The other end of a device.
#[derive(Clone)]
pub(crate) struct Backend {
    store: Arc<Store>,
    /// Its place in xenstore.
    pub(crate) path: Arc<str>,
    pub(crate) news: Arc<News>,
}

impl Backend {
    /// The end at `path`, whose state is watched for as long as the second result lives. It says its state again when its size changes.
    pub(crate) fn new(cx: &Task, store: &Arc<Store>, path: &str) -> Result<(Self, Watch), StoreError> {
        let news = Arc::new(News::new());
        let told = Arc::clone(&news);
        let watch = store.watch(cx, &format!("{path}/state"), cpu::current(), move || told.tell())?;
        Ok((Self { store: Arc::clone(store), path: path.into(), news }, watch))
    }

    /// Its state.
    pub(crate) async fn state(&self) -> Result<State, StoreError> {
        state(&self.store, &self.path).await
    }

    /// Waits until its state is one of `wanted`, `patience` is over, or there is no point any more. Returns the last one seen. One task at a
    /// time waits for news.
    pub(crate) async fn wait_for(
        &self,
        wanted: &[State],
        patience: Duration,
        is_over: impl Fn() -> bool,
    ) -> Result<State, StoreError> {
        let deadline = Instant::now() + patience;
        loop {
            let state = self.state().await?;
            if wanted.contains(&state) || Instant::now() >= deadline || is_over() {
                return Ok(state);
            }
            self.news.wait_until(deadline).await;
        }
    }
}

/// The state at a path; a path that is gone is [`State::UNKNOWN`].
pub(crate) async fn state(store: &Store, path: &str) -> Result<State, StoreError> {
    match store.number(&format!("{path}/state")).await {
        Ok(state) => Ok(State(state)),
        Err(StoreError::NotFound) => Ok(State::UNKNOWN),
        Err(error) => Err(error),
    }
}
