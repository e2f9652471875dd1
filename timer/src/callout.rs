//! [`Callout`]: the handle.

use core::fmt;
use core::marker::PhantomData;

use undercroft_hal::clock::{Duration, Instant};
use undercroft_hal::context::Kind;
use undercroft_hal::{BottomHalf, Task, cpu};

use crate::clockwork::{Request, Rule};
use crate::completion::{Completion, Drained};
use crate::expiry::Expiry;
use crate::level::{Level, Token};
use crate::next::Next;
use crate::node::{Flight, Gate, Handler, Owner, Ran, Ref, Slack};
use crate::outcome::{DrainError, StartError, Started, Stopped};
use crate::rest::{self, Rest};
use crate::service;

/// A timer with a handler, which runs at level `L` when its time has come.
///
/// The handle owns it: when it goes, the callout is closed, and a run in flight ends by itself, whose handler is freed after that. Nothing about a callout can
/// be freed, moved or made anew while it is armed or runs. Its handler runs once at a time, whatever the CPUs and starts.
pub struct Callout<L: Level = BottomHalf> {
    node: Owner,
    _level: PhantomData<fn() -> L>,
}

/// A handler that runs without a lock of its client's.
struct Free<L, F>(F, PhantomData<fn() -> L>);

impl<L, F, N> Handler for Free<L, F>
where
    L: Level,
    F: FnMut(&L::Token, &Expiry) -> N + Send + 'static,
    N: Into<Next>,
{
    const KIND: Kind = L::KIND;
    const BOUND: bool = false;

    fn run(&mut self, token: &Token<'_>, expiry: &Expiry, _flight: &mut Flight, _gate: &mut dyn Gate) -> Ran {
        L::of(token).map_or(Ran::Void, |token| Ran::Done((self.0)(token, expiry).into()))
    }
}

pub(crate) fn after(delay: Duration) -> Instant {
    Instant::now() + delay
}

/// Starts a callout by a reference to its node.
#[inline]
pub(crate) fn start(node: &Ref, request: Request) -> Result<Option<Started>, StartError> {
    service::with(|wheels| wheels.start(node, request)).unwrap_or(Err(StartError::NoSuchCpu))
}

/// The same, where there is no condition.
#[inline]
pub(crate) fn start_always(node: &Ref, request: Request) -> Result<Started, StartError> {
    start(node, request).map(|started| started.unwrap_or(Started::Armed))
}

impl<L: Level> Callout<L> {
    /// Makes a callout for CPU `home` (taken modulo the number of CPUs), not armed. Its handler says what it wants [next](Next): nothing, if
    /// it returns `()`. Allocates: bottom half or task.
    pub fn new<N: Into<Next>>(home: usize, handler: impl FnMut(&L::Token, &Expiry) -> N + Send + 'static) -> Self {
        Self::with_handler(home, Free::<L, _>(handler, PhantomData))
    }

    pub(crate) fn with_handler(home: usize, handler: impl Handler) -> Self {
        service::make();
        let home = service::with(|wheels| wheels.home(home)).unwrap_or_default();
        Self { node: Owner::new(Ref::new(home, handler)), _level: PhantomData }
    }

    /// With slack: a start that names none may be served that much later, together with others (rounded down to a power of two times 1024 ns).
    #[must_use]
    pub fn slack(self, slack: Duration) -> Self {
        service::with(|wheels| wheels.set_slack(&self.node, Slack::at_most(slack)));
        self
    }

    /// Never to wake its CPU: it runs when that is awake for something else. To be said before it is started.
    #[must_use]
    pub fn deferrable(self) -> Self {
        service::with(|wheels| wheels.set_deferrable(&self.node));
        self
    }

    /// Arms it for `delay` from now; a time for which it is armed already is replaced. On the CPU where it is at home. Any context.
    ///
    /// # Errors
    /// [`StartError`]: it is closed, or being drained.
    pub fn start(&self, delay: Duration) -> Result<Started, StartError> {
        self.start_at(after(delay))
    }

    /// Arms it for a time, as [`Callout::start`]. A time that is past means as soon as possible.
    ///
    /// # Errors
    /// As [`Callout::start`].
    pub fn start_at(&self, at: Instant) -> Result<Started, StartError> {
        start_always(&self.node, Request::at(at.as_nanos()))
    }

    /// Arms it for a time on CPU `cpu`, where it is at home from then on: at once, or, if its handler is in flight, when that is over.
    ///
    /// # Errors
    /// As [`Callout::start`], and [`StartError::NoSuchCpu`].
    pub fn start_on(&self, cpu: usize, at: Instant) -> Result<Started, StartError> {
        start_always(&self.node, Request::on(cpu, at.as_nanos()))
    }

    /// As [`Callout::start_on`], on the calling CPU.
    ///
    /// # Errors
    /// As [`Callout::start_on`].
    pub fn start_here(&self, at: Instant) -> Result<Started, StartError> {
        self.start_on(cpu::current(), at)
    }

    /// Arms it for some time from `at` to `at + slack`, at which others run too if there is one.
    ///
    /// # Errors
    /// As [`Callout::start`].
    pub fn start_within(&self, at: Instant, slack: Duration) -> Result<Started, StartError> {
        start_always(&self.node, Request { slack: Some(Slack::at_most(slack)), ..Request::at(at.as_nanos()) })
    }

    /// Arms it for a time if it is armed now, for whatever time. `None`: it is not.
    ///
    /// # Errors
    /// As [`Callout::start`].
    pub fn start_if_armed(&self, at: Instant) -> Result<Option<Started>, StartError> {
        start(&self.node, Request { rule: Rule::IfArmed, ..Request::at(at.as_nanos()) })
    }

    /// Arms it for a time unless it is armed for that or an earlier one. `None`: it is.
    ///
    /// # Errors
    /// As [`Callout::start`].
    pub fn start_if_sooner(&self, at: Instant) -> Result<Option<Started>, StartError> {
        start(&self.node, Request { rule: Rule::IfSooner, ..Request::at(at.as_nanos()) })
    }

    /// Disarms it, without waiting. Any context.
    pub fn stop(&self) -> Stopped {
        service::with(|wheels| wheels.stop(&self.node, false)).unwrap_or(Stopped::NotArmed)
    }

    /// Whether it is armed, at this moment: in a wheel, due, on its way to another CPU, or to be armed when its run ends. Any context.
    pub fn is_armed(&self) -> bool {
        self.when().is_some()
    }

    /// Whether its handler is in flight, at this moment. Any context.
    pub fn is_running(&self) -> bool {
        service::with(|wheels| wheels.status(&self.node).1).unwrap_or(false)
    }

    /// What it is armed for, at this moment. Any context.
    pub fn when(&self) -> Option<Instant> {
        service::with(|wheels| wheels.status(&self.node).0).flatten().map(Instant::from_nanos)
    }

    /// Stops it and waits until its handler is not in flight. Starts are refused until then; it may be started again afterwards. Whatever the
    /// handler did happened before this returns.
    ///
    /// # Errors
    /// [`DrainError`], when waiting might never end.
    pub fn drain(&self, cx: &Task) -> Result<Stopped, DrainError> {
        rest::wait(&self.node, false, cx)
    }

    /// As [`Callout::drain`], by a caller that holds a lock, which is let go only if there is something to wait for, and taken again after that.
    pub fn drain_with<G: rest::Interlock>(&self, cx: &Task, guard: G) -> (Result<Stopped, DrainError>, G) {
        rest::wait_with(&self.node, cx, guard)
    }

    /// Stops it; if its handler is in flight, `completion` runs when that is over. Starts are refused until then. Any context, the handler itself
    /// included; several at a time.
    pub fn drain_async(&self, completion: Completion) -> Drained {
        rest::wait_async(&self.node, false, completion)
    }

    /// Stops it now; the future is ready when its handler is not in flight. Dropping the future makes no difference to the callout. Allocates:
    /// bottom half or task.
    pub fn drained(&self) -> Rest {
        Rest::new(&self.node, false)
    }

    /// Closes it for ever and waits until its handler is not in flight. When this returns, the handler is freed.
    ///
    /// # Errors
    /// [`DrainError`], when waiting might never end. It is closed all the same, and freed when its run is over.
    pub fn close(mut self, cx: &Task) -> Result<(), DrainError> {
        let closed = rest::wait(&self.node, true, cx).map(|_| ());
        if closed.is_ok()
            && let Some(node) = self.node.take()
            && let Some(dead) = node.release()
        {
            dead.free();
        }
        closed
    }

    /// Closes it for ever. If its handler is in flight, `completion` runs when that is over and the handler is freed. Any context.
    pub fn close_async(mut self, completion: Completion) -> Drained {
        match self.node.take() {
            Some(node) => rest::close_async(node, completion),
            None => Drained::Now(completion),
        }
    }

    /// Closes it now, for ever; the future is ready when its handler is not in flight. Allocates: bottom half or task.
    pub fn closed(self) -> Rest {
        Rest::new(&self.node, true)
    }

    pub(crate) fn node(&self) -> &Ref {
        &self.node
    }
}

impl<L: Level> Drop for Callout<L> {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            service::with(|wheels| wheels.let_go(node));
        }
    }
}

impl<L: Level> fmt::Debug for Callout<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callout").field("level", &L::KIND).finish_non_exhaustive()
    }
}

/// A callout, for its own handler: what there is without waiting.
#[derive(Clone, Copy)]
pub struct CalloutRef<'a> {
    node: Option<&'a Ref>,
}

impl<'a> CalloutRef<'a> {
    pub(crate) const fn new(node: Option<&'a Ref>) -> Self {
        Self { node }
    }

    fn request(self, request: Request) -> Result<Option<Started>, StartError> {
        self.node.map_or(Err(StartError::Closed), |node| start(node, request))
    }

    fn always(self, request: Request) -> Result<Started, StartError> {
        self.request(request).map(|started| started.unwrap_or(Started::ParkedInFlight))
    }

    /// As [`Callout::start`]: it is armed when this run is over.
    ///
    /// # Errors
    /// As [`Callout::start`].
    pub fn start(self, delay: Duration) -> Result<Started, StartError> {
        self.start_at(after(delay))
    }

    /// As [`Callout::start_at`].
    ///
    /// # Errors
    /// As [`Callout::start`].
    pub fn start_at(self, at: Instant) -> Result<Started, StartError> {
        self.always(Request::at(at.as_nanos()))
    }

    /// As [`Callout::start_on`].
    ///
    /// # Errors
    /// As [`Callout::start_on`].
    pub fn start_on(self, cpu: usize, at: Instant) -> Result<Started, StartError> {
        self.always(Request::on(cpu, at.as_nanos()))
    }

    /// As [`Callout::start_if_armed`].
    ///
    /// # Errors
    /// As [`Callout::start`].
    pub fn start_if_armed(self, at: Instant) -> Result<Option<Started>, StartError> {
        self.request(Request { rule: Rule::IfArmed, ..Request::at(at.as_nanos()) })
    }

    /// As [`Callout::start_if_sooner`].
    ///
    /// # Errors
    /// As [`Callout::start`].
    pub fn start_if_sooner(self, at: Instant) -> Result<Option<Started>, StartError> {
        self.request(Request { rule: Rule::IfSooner, ..Request::at(at.as_nanos()) })
    }

    /// As [`Callout::stop`]; a period that the handler is about to ask for is cancelled too.
    pub fn stop(self) -> Stopped {
        let stop = |node| service::with(|wheels| wheels.stop(node, false));
        self.node.and_then(stop).unwrap_or(Stopped::NotArmed)
    }

    /// As [`Callout::drain_async`]: the completion runs after the handler returned.
    pub fn drain_async(self, completion: Completion) -> Drained {
        match self.node {
            Some(node) => rest::wait_async(node, false, completion),
            None => Drained::Now(completion),
        }
    }

    /// Closes the callout for ever; the completion runs after the handler returned. Its handle, which somebody else has, refuses to start from now on.
    pub fn close_async(self, completion: Completion) -> Drained {
        match self.node {
            Some(node) => rest::wait_async(node, true, completion),
            None => Drained::Now(completion),
        }
    }
}
