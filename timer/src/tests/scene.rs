//! A scene for interleavings: wheels of some CPUs, a clock that the test sets, and a port that notes what it is asked for.
//!
//! The same for step tests (on a hosted machine's CPU, for the locks' sake), loom's and shuttle's models.

use std::boxed::Box;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::vec::Vec;

use undercroft_hal::context::Kind;

use crate::clockwork::{Clockwork, Request};
use crate::completion::{Waiter, What};
use crate::executor::Chore;
use crate::expiry::Expiry;
use crate::level::Token;
use crate::next::Next;
use crate::node::{Flight, Gate, Handler, Ran, Ref, cpu_of};
use crate::outcome::{StartError, Started};
use crate::port::Port;
use crate::shim::{AtomicU32, LockGuard, Ordering};
use crate::wheels::Wheels;

/// What the port was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Alarm(usize, u64),
    Kick(usize),
    Schedule(usize, Kind),
}

#[cfg(shuttle)]
shuttle::thread_local! {
    static HERE: std::cell::Cell<usize> = std::cell::Cell::new(0);
}

#[derive(Default)]
pub(super) struct Mock {
    now: AtomicU64,
    /// By how much each look at the clock moves it on.
    per_look: AtomicU64,
    here: AtomicU64,
    asked: Mutex<Vec<Asked>>,
}

impl Port for Mock {
    fn now(&self) -> u64 {
        self.now.fetch_add(self.per_look.load(SeqCst), SeqCst)
    }
    fn current(&self) -> usize {
        #[cfg(shuttle)]
        return HERE.with(std::cell::Cell::get);
        #[cfg(not(shuttle))]
        return self.here.load(SeqCst) as usize;
    }
    fn is_ready(&self) -> bool {
        true
    }
    fn set_alarm(&self, at: u64) {
        self.note(Asked::Alarm(self.current(), at));
    }
    fn kick(&self, cpu: usize) {
        self.note(Asked::Kick(cpu));
    }
    fn schedule(&self, cpu: usize, level: Kind) {
        self.note(Asked::Schedule(cpu, level));
    }
}

impl Mock {
    fn note(&self, asked: Asked) {
        self.asked.lock().unwrap().push(asked);
    }
}

/// A lock that a test's handler runs with. It is tried only.
#[derive(Default)]
pub(super) struct Lock(AtomicU32);

impl Lock {
    pub(super) fn try_lock(&self) -> bool {
        self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
    pub(super) fn unlock(&self) {
        self.0.store(0, Ordering::Release);
    }
    pub(super) fn is_held(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }
}

struct Free<F>(F);

impl<F: FnMut(&Expiry) -> Next + Send + 'static> Handler for Free<F> {
    const KIND: Kind = Kind::BottomHalf;
    const BOUND: bool = false;
    fn run(&mut self, _: &Token<'_>, expiry: &Expiry, _: &mut Flight, _: &mut dyn Gate) -> Ran {
        Ran::Done((self.0)(expiry))
    }
}

struct Direct<F>(F);

impl<F: FnMut(&Expiry) -> Next + Send + 'static> Handler for Direct<F> {
    const KIND: Kind = Kind::HardIrq;
    const BOUND: bool = false;
    fn run(&mut self, _: &Token<'_>, expiry: &Expiry, _: &mut Flight, _: &mut dyn Gate) -> Ran {
        Ran::Done((self.0)(expiry))
    }
}

struct Bound<F>(Arc<Lock>, F);

impl<F: FnMut(&Expiry) -> Next + Send + 'static> Handler for Bound<F> {
    const KIND: Kind = Kind::BottomHalf;
    const BOUND: bool = true;
    fn run(&mut self, _: &Token<'_>, expiry: &Expiry, flight: &mut Flight, gate: &mut dyn Gate) -> Ran {
        if !self.0.try_lock() {
            return Ran::Contended;
        }
        let ran = if gate.enter(flight) {
            let next = (self.1)(expiry);
            gate.leave(flight, next);
            Ran::Left
        } else {
            Ran::Void
        };
        self.0.unlock();
        ran
    }
}

pub(super) const BH: Token<'static> = Token::Test(Kind::BottomHalf);
pub(super) const HARD: Token<'static> = Token::Test(Kind::HardIrq);

pub(super) struct Scene {
    pub(super) wheels: Wheels<Mock>,
}

impl Scene {
    pub(super) fn new(cpus: usize) -> Self {
        Self { wheels: Wheels::new(cpus, Mock::default()) }
    }

    pub(super) fn node(&self, handler: impl FnMut(&Expiry) -> Next + Send + 'static) -> Ref {
        Ref::new(self.wheels.home(0), Free(handler))
    }

    pub(super) fn direct(&self, handler: impl FnMut(&Expiry) -> Next + Send + 'static) -> Ref {
        Ref::new(self.wheels.home(0), Direct(handler))
    }

    pub(super) fn bound(&self, lock: &Arc<Lock>, handler: impl FnMut(&Expiry) -> Next + Send + 'static) -> Ref {
        Ref::new(self.wheels.home(0), Bound(Arc::clone(lock), handler))
    }

    /// A node whose handler counts its runs.
    pub(super) fn counting(&self) -> (Ref, Arc<AtomicU64>) {
        let count = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&count);
        let node = self.node(move |_| {
            theirs.fetch_add(1, SeqCst);
            Next::Done
        });
        (node, count)
    }

    pub(super) fn w(&self, cpu: usize) -> LockGuard<'_, Clockwork> {
        self.wheels.lock(cpu).unwrap().w
    }

    pub(super) fn start(&self, node: &Ref, at: u64) -> Result<Option<Started>, StartError> {
        self.wheels.start(node, Request::at(at))
    }

    pub(super) fn start_on(&self, node: &Ref, cpu: usize, at: u64) -> Result<Option<Started>, StartError> {
        self.wheels.start(node, Request::on(cpu, at))
    }

    pub(super) fn set_time(&self, now: u64) {
        self.wheels.port.now.store(now, SeqCst);
    }

    pub(super) fn now(&self) -> u64 {
        self.wheels.port.now.load(SeqCst)
    }

    /// Each look at the clock moves it on.
    pub(super) fn time_flies(&self, by: u64) {
        self.wheels.port.per_look.store(by, SeqCst);
    }

    /// The test goes on as this CPU.
    pub(super) fn be(&self, cpu: usize) {
        #[cfg(shuttle)]
        HERE.with(|here| here.set(cpu));
        #[cfg(not(shuttle))]
        self.wheels.port.here.store(cpu as u64, SeqCst);
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        core::mem::take(&mut *self.wheels.port.asked.lock().unwrap())
    }

    /// Starts it for a time that comes at once, and takes it into flight.
    pub(super) fn commit(&self, node: &Ref) -> Flight {
        let now = self.now() + 10_000;
        let started = self.start(node, now);
        assert!(started.is_ok(), "{started:?}");
        self.set_time(now + 2_000);
        let mut w = self.w(cpu_of(node.home()));
        let _ = w.take_due(now + 2_000);
        w.commit(node.kind()).expect("due")
    }

    /// Takes what is due next into flight.
    pub(super) fn take(&self, cpu: usize) -> Option<Flight> {
        self.w(cpu).commit(Kind::BottomHalf)
    }

    pub(super) fn armed(&self, cpu: usize) -> usize {
        self.w(cpu).shelf.armed()
    }

    pub(super) fn enter(&self, flight: &mut Flight) -> bool {
        let now = self.now();
        self.w(cpu_of(flight.node().home())).enter(flight, now)
    }

    /// The handler returns, and the run ends.
    pub(super) fn end(&self, mut flight: Flight, next: Next) {
        let now = self.now();
        self.w(cpu_of(flight.node().home())).leave(&mut flight, next, now);
        self.finish(flight);
    }

    pub(super) fn finish(&self, flight: Flight) {
        let mut locked = self.wheels.lock(cpu_of(flight.node().home())).unwrap();
        let transit = locked.w.finish(flight);
        self.wheels.unlock(locked);
        if let Some((node, transit)) = transit {
            self.wheels.arrive_last(node, transit);
        }
    }

    /// Drains or closes with a completion. `true`: it was given back.
    pub(super) fn drain(&self, node: &Ref, close: bool, done: impl FnOnce() + Send + 'static) -> bool {
        self.wheels.drain_with(node, close, Waiter::new(What::Test(Box::new(done)))).is_some()
    }

    /// What bottom halves do besides handlers.
    pub(super) fn chores(&self, cpu: usize) {
        while let Some(chore) = self.wheels.chore(cpu) {
            match chore {
                Chore::Free(dead) => dead.free(),
                Chore::Complete(waiter) => {
                    if let What::Test(run) = waiter.what {
                        run();
                    }
                }
                Chore::Jumped(_) => {}
            }
        }
    }

    pub(super) fn status(&self, node: &Ref) -> (Option<u64>, bool) {
        self.wheels.status(node)
    }

    /// Runs everything that comes due on all CPUs until a time.
    pub(super) fn run_until(&self, until: u64) {
        while self.now() < until {
            self.set_time((self.now() + 10_000).min(until));
            for cpu in 0..self.wheels.cpus() {
                self.be(cpu);
                self.wheels.interrupt(cpu, HARD, true);
                while self.wheels.turn(cpu, BH) {
                    self.chores(cpu);
                }
                self.chores(cpu);
            }
        }
        self.be(0);
    }
}

/// Runs a scene on a machine of its own.
#[cfg(not(any(loom, shuttle)))]
pub(super) fn scene(cpus: usize, f: impl FnOnce(&Scene)) {
    undercroft_hal::hosted::Cpus::new(1).run(0, |_| f(&Scene::new(cpus)));
}
