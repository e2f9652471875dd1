//! The programme on ours: struck at random points on one thread, judged exactly; and with CPUs that really run at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use undercroft_hal::{BottomHalf, Instant, Task, cpu};
use undercroft_timer::{Callout, Completion, Expiry, timers};

use super::{Deed, Plan, Size};
use crate::crew::Crew;
use crate::lab::Lab;
use crate::ours::{End, Object, at};
use crate::watch::Watch;

const SIZE: Size = Size { cpus: 3, clients: 3, deeds: 40, moves: true };
/// Of a plan's delays: two ticks of the wheel.
const UNIT: u64 = 2048;

fn deadline(delay: u64) -> u64 {
    Instant::now().as_nanos() + delay * UNIT
}

/// One client of the run on one thread.
struct Client {
    id: usize,
    callout: Callout<BottomHalf>,
    end: End,
    last: Completion,
}

struct Run {
    plan: Mutex<Plan>,
    watch: Arc<Watch>,
    clients: Vec<Mutex<Option<Client>>>,
    made: AtomicUsize,
    ends: Mutex<Vec<End>>,
}

impl Run {
    fn make(self: &Arc<Self>, home: usize) -> Client {
        let id = self.made.fetch_add(1, Ordering::Relaxed);
        let (object, run) = (Object::new(&self.watch, id), Arc::downgrade(self));
        let callout = Callout::<BottomHalf>::new(home, move |_: &BottomHalf, expiry: &Expiry| {
            let Some(run) = run.upgrade() else { return };
            object.run(expiry, || {
                let deed = run.plan.lock().unwrap().in_handler(home);
                if let Some(Deed::Start { cpu, delay }) = deed {
                    // With its note: no strike between the two.
                    cpu::without_interrupts(|| {
                        let at_ = deadline(delay);
                        if expiry.callout().start_on(cpu, at(at_)).is_ok() {
                            let _ = run.watch.armed(id, at_);
                        }
                    });
                }
            });
        });
        let end = End::new(&self.watch, id);
        self.ends.lock().unwrap().push(end.clone());
        let last = end.completion();
        Client { id, callout, end, last }
    }

    /// Client `n` does what comes next in the plan. In any context: a callout that it closes is remade by the task.
    fn deed(&self, n: usize) {
        let deed = self.plan.lock().unwrap().deed(n % SIZE.cpus);
        cpu::without_interrupts(|| {
            let Some(client) = self.clients[n].lock().unwrap().take() else { return };
            match deed {
                Deed::Start { cpu, delay } => {
                    let at_ = deadline(delay);
                    let _ = client.callout.start_on(cpu, at(at_)).unwrap();
                    let _ = self.watch.armed(client.id, at_);
                }
                Deed::Stop => {
                    let _ = client.callout.stop();
                    self.watch.cancelled(client.id);
                }
                Deed::Remake => {
                    self.watch.cancelled(client.id);
                    client.end.heard(client.callout.close_async(client.last));
                    return;
                }
            }
            *self.clients[n].lock().unwrap() = Some(client);
        });
    }

    fn remake(self: &Arc<Self>) {
        for (n, client) in self.clients.iter().enumerate() {
            if client.lock().unwrap().is_none() {
                let made = self.make(n % SIZE.cpus);
                *client.lock().unwrap() = Some(made);
            }
        }
    }
}

/// One seed. How often a strike hit a run in flight.
fn struck(seed: u64) -> usize {
    Lab::run(SIZE.cpus, |lab, task| {
        timers::start_service(task);
        let run = Arc::new(Run {
            plan: Mutex::new(Plan::new(seed, SIZE)),
            watch: Arc::new(Watch::new()),
            clients: (0..SIZE.clients).map(|_| Mutex::default()).collect(),
            made: AtomicUsize::new(0),
            ends: Mutex::default(),
        });
        let (theirs, hits) = (Arc::clone(&run), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&hits);
        let intruder = Lab::intruder(task, move || {
            let n = theirs.plan.lock().unwrap().below(SIZE.clients);
            let in_flight = timers_in_flight();
            count.fetch_add(in_flight, Ordering::Relaxed);
            theirs.deed(n);
        });
        for _ in 0..SIZE.deeds {
            run.remake();
            let [n, after, cpu, pause] =
                [SIZE.clients, 30, 2 * SIZE.cpus, 6].map(|most| run.plan.lock().unwrap().below(most));
            run.deed(n);
            lab.strike(&intruder, after, Some(cpu).filter(|&cpu| cpu < SIZE.cpus));
            lab.pass_to(lab.now() + pause as u64 * UNIT);
        }
        lab.call_off();
        run.clients.iter().for_each(|client| {
            if let Some(client) = client.lock().unwrap().take() {
                client.end.heard(client.callout.close_async(client.last));
            }
        });
        lab.pass_to(lab.now() + 1000 * UNIT);
        assert!(
            run.ends.lock().unwrap().iter().all(|end| end.times() == 1),
            "seed {seed}: an end that did not come, or twice"
        );
        assert!(
            (0..SIZE.cpus).all(|cpu| timers::stats(cpu).armed == 0 && timers::stats(cpu).in_flight == 0),
            "seed {seed}"
        );
        assert_eq!(run.watch.violations(), [], "seed {seed}");
        hits.load(Ordering::Relaxed)
    })
}

fn timers_in_flight() -> usize {
    (0..SIZE.cpus).map(|cpu| timers::stats(cpu).in_flight as usize).sum()
}

#[test]
fn t_22_to_t_32_the_stress_programme_finds_nothing() {
    let hits: usize = (0..300).map(struck).sum();
    assert!(hits > 100, "only {hits} strikes hit a run in flight");
}

/// One client on a CPU of its own.
fn client(task: &Task, n: usize, watch: &Arc<Watch>, ids: &Arc<AtomicUsize>) {
    let mut plan = Plan::new(n as u64 + 1, SIZE);
    let make = |plan: &mut Plan| {
        let id = ids.fetch_add(1, Ordering::SeqCst);
        let (object, judge) = (Object::new(watch, id), Arc::clone(watch));
        let mut theirs = plan.clone();
        let callout = Callout::<BottomHalf>::new(n, move |_: &BottomHalf, expiry: &Expiry| {
            assert!(expiry.now() >= expiry.deadline(), "early");
            let _ = judge.begins_superseded(object.id());
            if let Some(Deed::Start { cpu, delay }) = theirs.in_handler(n) {
                let _ = expiry.callout().start_on(cpu, at(deadline(delay)));
            }
            let _ = judge.ends(object.id());
        });
        (id, callout)
    };
    let mut now = make(&mut plan);
    for _ in 0..1000 {
        // Time enough for some to become due.
        let pause = deadline(plan.below(4) as u64);
        while Instant::now() < at(pause) {
            task.run_pending();
            cpu::relax();
        }
        match plan.deed(n) {
            Deed::Start { cpu, delay } => drop(now.1.start_on(cpu, at(deadline(delay))).unwrap()),
            Deed::Stop => drop(now.1.stop()),
            Deed::Remake => {
                let old = std::mem::replace(&mut now, make(&mut plan));
                old.1.close(task).unwrap();
                let _ = watch.over(old.0);
            }
        }
    }
    now.1.close(task).unwrap();
    let _ = watch.over(now.0);
}

/// Under ThreadSanitizer too.
#[test]
fn t_22_to_t_32_stress_with_threads() {
    Crew::run(SIZE.cpus + 1, |crew, task| {
        timers::start_service(task);
        let (watch, ids) = (Arc::new(Watch::new()), Arc::new(AtomicUsize::new(0)));
        let clients: Vec<_> = (0..SIZE.cpus)
            .map(|n| {
                let (watch, ids) = (Arc::clone(&watch), Arc::clone(&ids));
                crew.ask(task, n + 1, move |task| client(task, n, &watch, &ids))
            })
            .collect();
        let mut left = clients.len();
        crew.until(task, || {
            crew.advance(UNIT / 4);
            left -= clients.iter().filter(|client| client.try_take().is_some()).count();
            left == 0
        });
        assert!((0..SIZE.cpus).all(|cpu| timers::stats(cpu).armed == 0));
        assert!((0..SIZE.cpus).map(|cpu| timers::stats(cpu).fired).sum::<u64>() > 100);
        watch.assert_clean();
    });
}
