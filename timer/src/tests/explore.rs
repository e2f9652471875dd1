//! Shuttle: four CPUs that start, stop, drain, close and make anew two callouts, in thousands of random schedules.
//!
//! Each CPU is a thread that does what its programme says and, between, what its interrupts and bottom halves would. Checked all the way: one
//! handler at a time (I-1), none early (I-8), none of a callout that is closed or freed (I-2, I-4, I-6); at the end: one completion for each
//! drain (I-5), everything freed, nothing armed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::vec::Vec;

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread;

use crate::broken::{self, Hazard};
use crate::next::Next;
use crate::node::Ref;
use crate::tests::scene::{BH, HARD, Scene};

const CPUS: usize = 4;
const ROUNDS: usize = 5;

#[derive(Default)]
struct Counts {
    made: AtomicU64,
    freed: AtomicU64,
    accepted: AtomicU64,
    completed: AtomicU64,
    runs: AtomicU64,
}

/// A callout and what its handler uses.
struct Object {
    scene: Arc<Scene>,
    node: Option<Ref>,
    use_: Arc<Use>,
}

#[derive(Default)]
struct Use {
    busy: AtomicBool,
    closed: AtomicBool,
}

/// In the handler: dropped with it.
struct Watch(Arc<Counts>, Arc<Use>);

impl Drop for Watch {
    fn drop(&mut self) {
        assert!(!self.1.busy.load(SeqCst), "freed while it runs");
        self.0.freed.fetch_add(1, SeqCst);
    }
}

impl Object {
    fn new(scene: &Arc<Scene>, counts: &Arc<Counts>, direct: bool) -> Arc<Self> {
        counts.made.fetch_add(1, SeqCst);
        let use_ = Arc::new(Use::default());
        let watch = Watch(Arc::clone(counts), Arc::clone(&use_));
        let clock = Arc::clone(scene);
        let handler = move |expiry: &crate::Expiry| {
            let Watch(counts, used) = &watch;
            assert!(!used.busy.swap(true, SeqCst), "two handlers at once");
            assert!(!used.closed.load(SeqCst), "ran after its close");
            assert!(clock.now() >= expiry.deadline().as_nanos(), "early");
            thread::yield_now();
            counts.runs.fetch_add(1, SeqCst);
            used.busy.store(false, SeqCst);
            match thread_rng().gen_range(0..3u32) {
                0 => Next::Every(undercroft_hal::Duration::from_micros(3)),
                1 => Next::After(undercroft_hal::Duration::from_micros(1)),
                _ => Next::Done,
            }
        };
        let node = if direct { scene.direct(handler) } else { scene.node(handler) };
        Arc::new(Self { scene: Arc::clone(scene), node: Some(node), use_ })
    }

    fn node(&self) -> &Ref {
        self.node.as_ref().unwrap()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            self.scene.wheels.let_go(node);
        }
    }
}

/// What interrupts and bottom halves of a CPU do.
fn serve(scene: &Scene, cpu: usize) {
    scene.wheels.interrupt(cpu, HARD, true);
    let _ = scene.wheels.turn(cpu, BH);
    scene.chores(cpu);
}

fn act(scene: &Arc<Scene>, counts: &Arc<Counts>, slots: &[Mutex<Arc<Object>>], cpu: usize) {
    let mut random = thread_rng();
    let slot = random.gen_range(0..slots.len());
    let object = Arc::clone(&slots[slot].lock().unwrap());
    match random.gen_range(0..8u32) {
        0 | 1 => {
            let at = scene.now() + random.gen_range(0..6_000u64);
            let _ = scene.start_on(object.node(), random.gen_range(0..CPUS), at);
        }
        2 => _ = scene.start(object.node(), scene.now() + random.gen_range(0..3_000u64)),
        3 => _ = scene.wheels.stop(object.node(), false),
        4 => {
            let theirs = Arc::clone(counts);
            if !scene.drain(object.node(), false, move || _ = theirs.completed.fetch_add(1, SeqCst)) {
                counts.accepted.fetch_add(1, SeqCst);
            }
        }
        5 => {
            // Closed, waited for, and made anew.
            let new = Object::new(scene, counts, slot == 0);
            let old = core::mem::replace(&mut *slots[slot].lock().unwrap(), new);
            let draining = scene.wheels.drain_on(old.node(), true, Some(cpu)).unwrap();
            if let Some(flight) = draining.flight {
                while !scene.wheels.is_over(old.node(), flight) {
                    serve(scene, cpu);
                    thread::yield_now();
                }
            }
            assert!(!old.use_.busy.load(SeqCst), "runs after its close");
            old.use_.closed.store(true, SeqCst);
            assert_eq!(scene.status(old.node()), (None, false), "armed after its close");
        }
        6 => scene.set_time(scene.now() + 2_000),
        _ => serve(scene, cpu),
    }
}

fn programme() {
    let scene = Arc::new(Scene::new(CPUS));
    let counts = Arc::new(Counts::default());
    let slots: Arc<Vec<_>> = Arc::new((0..2).map(|n| Mutex::new(Object::new(&scene, &counts, n == 0))).collect());
    let threads: Vec<_> = (0..CPUS)
        .map(|cpu| {
            let (scene, counts, slots) = (Arc::clone(&scene), Arc::clone(&counts), Arc::clone(&slots));
            thread::spawn(move || {
                scene.be(cpu);
                for _ in 0..ROUNDS {
                    act(&scene, &counts, &slots, cpu);
                    serve(&scene, cpu);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    for slot in slots.iter() {
        let object = Arc::clone(&slot.lock().unwrap());
        let _ = scene.wheels.drain_on(object.node(), true, None);
    }
    drop(slots);
    for _ in 0..3 {
        (0..CPUS).for_each(|cpu| serve(&scene, cpu));
    }
    assert_eq!(counts.accepted.load(SeqCst), counts.completed.load(SeqCst), "one completion for each drain");
    assert_eq!(counts.made.load(SeqCst), counts.freed.load(SeqCst), "everything is freed, once");
    assert!((0..CPUS).all(|cpu| scene.armed(cpu) == 0));
}

fn config() -> shuttle::Config {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    config
}

fn random(iterations: usize, programme: fn()) {
    shuttle::Runner::new(RandomScheduler::new(iterations), config()).run(programme);
}

/// By priorities that change at a few points: one CPU gets far while another stands still.
fn by_priority(iterations: usize, programme: fn()) {
    shuttle::Runner::new(PctScheduler::new(3, iterations), config()).run(programme);
}

/// I-1: a callout that is due on one CPU is started on another, which serves it as soon as it may.
fn elsewhere() {
    let (scene, counts) = (Arc::new(Scene::new(2)), Arc::new(Counts::default()));
    let object = Object::new(&scene, &counts, false);
    let _ = scene.start(object.node(), 1_000);
    scene.set_time(5_000);
    let (theirs, other) = (Arc::clone(&scene), Arc::clone(&object));
    let second = thread::spawn(move || {
        theirs.be(1);
        let _ = theirs.start_on(other.node(), 1, 1_000);
        for _ in 0..3 {
            serve(&theirs, 1);
        }
    });
    for _ in 0..3 {
        serve(&scene, 0);
    }
    second.join().unwrap();
    drop(object);
    (0..2).for_each(|cpu| serve(&scene, cpu));
}

#[test]
fn shuttle_i_01_one_handler_at_a_time() {
    by_priority(3000, elsewhere);
}

#[test]
fn shuttle_i_01_to_i_08_random_schedules() {
    random(3000, programme);
}

#[test]
fn shuttle_i_01_to_i_08_with_priorities() {
    by_priority(3000, programme);
}

macro_rules! controls {
    ($(fn $name:ident = $hazard:ident, $how:ident $programme:ident, $message:literal;)*) => {
        $(
            #[test]
            #[should_panic(expected = $message)]
            fn $name() {
                broken::with(Hazard::$hazard, || $how(5000, $programme));
            }
        )*
    };
}

controls! {
    fn shuttle_i_01_control_moved_in_flight = MovedInFlight, by_priority elsewhere, "two handlers at once";
    fn shuttle_i_04_control_does_not_wait = DrainDoesNotWait, random programme, "after its close";
    fn shuttle_i_05_control_one_waiter = OneWaiter, random programme, "one completion for each drain";
    fn shuttle_i_04_control_starts_after_close = StartsAfterClose, random programme, "after its close";
}
