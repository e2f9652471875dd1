//! Loom's models: the real steps and locks, by every interleaving that the memory model allows.
//!
//! M1 to M7 of `docs/callouts.md`. The payload that a handler uses is a cell that loom watches: whoever takes a callout for quiet while its
//! handler runs, or without what orders him after it, is reported.

use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use loom::sync::Arc;
use loom::thread;

use crate::broken::{self, Hazard};
use crate::cell::Exclusive;
use crate::next::Next;
use crate::node::Ref;
use crate::outcome::Stopped;
use crate::tests::scene::{BH, Scene};

/// A scene, a callout whose handler uses a payload, and what the payload is for.
struct Stage {
    scene: Scene,
    payload: Exclusive<u64>,
    node: StdArc<std::sync::OnceLock<Ref>>,
    runs: AtomicU64,
}

// SAFETY: the payload is shared on purpose: loom watches it.
unsafe impl Sync for Stage {}
// SAFETY: as above.
unsafe impl Send for Stage {}

impl Stage {
    /// `act` is what the handler does besides using the payload.
    fn new(cpus: usize, act: impl Fn(&Self) -> Next + Send + 'static) -> Arc<Self> {
        let node = StdArc::new(std::sync::OnceLock::new());
        let stage =
            Arc::new(Self { scene: Scene::new(cpus), payload: Exclusive::new(0), node, runs: AtomicU64::new(0) });
        // By address: a handler that owned its stage would keep itself alive.
        let address = core::ptr::from_ref(&*stage).expose_provenance();
        let made = stage.scene.node(move |_| {
            // SAFETY: the stage is alive while any of its threads is.
            let stage = unsafe { &*core::ptr::with_exposed_provenance::<Self>(address) };
            stage.touch();
            stage.runs.fetch_add(1, SeqCst);
            let next = act(stage);
            stage.touch();
            next
        });
        assert!(stage.node.set(made).is_ok());
        stage
    }

    fn node(&self) -> &Ref {
        self.node.get().unwrap()
    }

    /// Uses the payload, as the handler does, or as who frees it.
    fn touch(&self) {
        // SAFETY: not at all: loom is to find out.
        unsafe { self.payload.with(|payload| *payload += 1) };
    }

    fn due(&self) {
        let _ = self.scene.start(self.node(), 1_000);
        self.scene.set_time(5_000);
    }

    /// An executor's turn on a CPU.
    fn turn(&self, cpu: usize) {
        let _ = self.scene.wheels.turn(cpu, BH);
    }

    /// Drains or closes, waits, and uses the payload as who owns it alone.
    fn rest(&self, close: bool) -> Stopped {
        let draining = self.scene.wheels.drain_on(self.node(), close, None).unwrap();
        if let Some(flight) = draining.flight {
            while !self.scene.wheels.is_over(self.node(), flight) {
                thread::yield_now();
            }
        }
        self.touch();
        draining.stopped
    }

    fn is_quiet(&self) {
        assert_eq!(self.scene.status(self.node()), (None, false), "armed after the drain returned");
    }
}

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

fn spawn(stage: &Arc<Stage>, f: impl FnOnce(&Stage) + 'static) -> thread::JoinHandle<()> {
    let stage = Arc::clone(stage);
    thread::spawn(move || f(&stage))
}

macro_rules! models {
    ($(fn $name:ident, fn $control:ident = $scenario:ident, $hazard:ident, $message:literal;)*) => {
        $(
            #[test]
            fn $name() {
                $scenario();
            }
            #[test]
            #[should_panic(expected = $message)]
            fn $control() {
                broken::with(Hazard::$hazard, $scenario);
            }
        )*
    };
}

models! {
    fn loom_m1_t_33_drained_while_running, fn loom_m1_t_33_control_does_not_wait = drained_while_running, DrainDoesNotWait, "Causality violation";
    fn loom_m2_t_18_no_client_erases_the_flight, fn loom_m2_t_18_control_start_erases_flight = flight_erased, StartErasesFlight, "Causality violation";
    fn loom_m3_t_35_running_and_armed_again, fn loom_m3_t_35_control_removed_means_idle = running_and_armed, RemovedMeansIdle, "Causality violation";
    fn loom_m4_t_22_moved_by_its_handler, fn loom_m4_t_22_control_moved_in_flight = moved_by_handler, MovedInFlight, "Causality violation";
    fn loom_m5_w_12_the_end_is_seen_under_the_lock, fn loom_m5_w_12_control_finished_early = drained_while_running, FinishedEarly, "Causality violation";
    fn loom_m6_t_30_no_completion_is_lost, fn loom_m6_t_30_control_registered_late = completion, RegisteredLate, "each drain is answered once";
    fn loom_m7_i_04_dispatches_a_start_and_a_close, fn loom_m7_i_04_control_next_survives = three_threads, NextSurvivesDrain, "armed after the drain returned";
    fn loom_w_08_w_11_stopped_in_transit, fn loom_w_08_w_11_control_transit_unchecked = stopped_in_transit, TransitUnchecked, "stopped, and armed all the same";
    fn loom_w_11_gone_and_come_back, fn loom_w_11_control_home_relaxed = gone_and_come_back, HomeRelaxed, "Causality violation";
    fn loom_t_03_the_last_of_two_completions, fn loom_t_03_control_does_not_wait = last_of_two, DrainDoesNotWait, "Causality violation";
    fn loom_w_19_started_on_another_cpu, fn loom_w_19_control_no_kick = started_elsewhere, NoKick, "nobody tells the other CPU";
}

/// M1, M5.
fn drained_while_running() {
    model(|| {
        let stage = Stage::new(1, |_| Next::Done);
        stage.due();
        let executor = spawn(&stage, |stage| stage.turn(0));
        let _ = stage.rest(false);
        stage.is_quiet();
        executor.join().unwrap();
    });
}

/// M2: started and stopped while it may be committed.
fn flight_erased() {
    model(|| {
        let stage = Stage::new(1, |_| Next::Done);
        stage.due();
        let executor = spawn(&stage, |stage| stage.turn(0));
        let _ = stage.scene.start(stage.node(), 1_000_000);
        let _ = stage.scene.wheels.stop(stage.node(), false);
        let _ = stage.rest(true);
        stage.is_quiet();
        executor.join().unwrap();
    });
}

/// M3: somebody starts it, perhaps while it runs, and drains it.
fn running_and_armed() {
    model(|| {
        let stage = Stage::new(1, |_| Next::Done);
        stage.due();
        let executor = spawn(&stage, |stage| stage.turn(0));
        let _ = stage.scene.start(stage.node(), 1_000_000);
        let _ = stage.rest(false);
        stage.is_quiet();
        executor.join().unwrap();
    });
}

/// M4: the handler sends its callout to another CPU while somebody drains it.
fn moved_by_handler() {
    model(|| {
        let stage = Stage::new(2, |stage| {
            let _ = stage.scene.start_on(stage.node(), 1, 1_000_000);
            Next::Done
        });
        stage.due();
        let executor = spawn(&stage, |stage| stage.turn(0));
        let _ = stage.rest(true);
        stage.is_quiet();
        executor.join().unwrap();
        stage.is_quiet();
    });
}

/// M6: a drain with a completion against the end of the run.
fn completion() {
    model(|| {
        let stage = Stage::new(1, |_| Next::Done);
        stage.due();
        let executor = spawn(&stage, |stage| stage.turn(0));
        let completed = StdArc::new(AtomicU64::new(0));
        let theirs = StdArc::clone(&completed);
        let now = stage.scene.drain(stage.node(), false, move || _ = theirs.fetch_add(1, SeqCst));
        executor.join().unwrap();
        stage.scene.chores(0);
        assert_eq!(completed.load(SeqCst) + u64::from(now), 1, "each drain is answered once");
        stage.touch();
    });
}

/// M7: two turns, a start and a stop, a close.
fn three_threads() {
    model(|| {
        let stage = Stage::new(1, |_| Next::At(undercroft_hal::Instant::from_nanos(2_000)));
        stage.due();
        let executor = spawn(&stage, |stage| {
            stage.turn_once();
            stage.turn_once();
        });
        let client = spawn(&stage, |stage| {
            let _ = stage.scene.start(stage.node(), 1_500);
        });
        let _ = stage.rest(true);
        stage.is_quiet();
        client.join().unwrap();
        executor.join().unwrap();
        stage.is_quiet();
    });
}

impl Stage {
    /// One run at most.
    fn turn_once(&self) {
        let flight = {
            let mut w = self.scene.w(0);
            let _ = w.take_due(5_000);
            w.commit(self.node().kind())
        };
        if let Some(mut flight) = flight {
            self.scene.enter(&mut flight);
            self.scene.wheels.attempt(0, &BH, 5_000, flight);
        }
    }
}

/// W-08, W-11: a callout goes to another CPU, and is stopped meanwhile.
fn stopped_in_transit() {
    model(|| {
        let stage = Stage::new(2, |_| Next::Done);
        let mover = spawn(&stage, |stage| {
            let _ = stage.scene.start_on(stage.node(), 1, 1_000_000);
        });
        let stopped = stage.scene.wheels.stop(stage.node(), false);
        mover.join().unwrap();
        let armed = stage.scene.status(stage.node()).0.is_some();
        assert_eq!(armed, stopped == Stopped::NotArmed, "stopped, and armed all the same");
        assert_eq!(stage.scene.armed(1), usize::from(armed));
    });
}

/// W-11: a callout leaves its wheel and comes back while somebody is on his way to that wheel's lock.
fn gone_and_come_back() {
    model(|| {
        let stage = Stage::new(2, |_| Next::Done);
        let mover = spawn(&stage, |stage| {
            let _ = stage.scene.start_on(stage.node(), 1, 1_000_000);
            let _ = stage.scene.start_on(stage.node(), 0, 1_000_000);
        });
        let _ = stage.scene.start(stage.node(), 2_000_000);
        mover.join().unwrap();
        let at = stage.scene.status(stage.node()).0;
        assert!(at.is_some(), "started, and not armed");
    });
}

/// T-03: two callouts of one object on two CPUs come to rest; the last completion frees the payload of both.
fn last_of_two() {
    model(|| {
        let stage = Stage::new(2, |_| Next::Done);
        let other = Stage::new(2, |_| Next::Done);
        stage.due();
        let left = Arc::new(loom::sync::atomic::AtomicUsize::new(2));
        let executor = spawn(&stage, |stage| {
            stage.turn(0);
            stage.scene.chores(0);
        });
        let less = {
            let (stage, other, left) = (Arc::clone(&stage), Arc::clone(&other), Arc::clone(&left));
            move || {
                if left.fetch_sub(1, loom::sync::atomic::Ordering::AcqRel) == 1 {
                    stage.touch();
                    other.touch();
                }
            }
        };
        if stage.scene.drain(stage.node(), true, less.clone()) {
            less();
        }
        less();
        executor.join().unwrap();
        stage.scene.chores(0);
        assert_eq!(left.load(loom::sync::atomic::Ordering::Relaxed), 0);
    });
}

/// W-19: CPU 1 looks at its wheel and goes to sleep while CPU 0 starts something there.
fn started_elsewhere() {
    use crate::tests::scene::{Asked, HARD};
    model(|| {
        let stage = Stage::new(2, |_| Next::Done);
        let sleeper = spawn(&stage, |stage| {
            // As CPU 1's kick handler would, once.
            stage.scene.wheels.interrupt(1, HARD, false);
        });
        let _ = stage.scene.start_on(stage.node(), 1, 1_000_000);
        sleeper.join().unwrap();
        let asked = stage.scene.asked();
        let told = asked.iter().any(|asked| matches!(asked, Asked::Kick(1) | Asked::Alarm(..)));
        assert!(told, "nobody tells the other CPU");
    });
}
