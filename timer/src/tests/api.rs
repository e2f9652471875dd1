//! The service as its users see it: on a machine of CPUs whose clock the test sets.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::vec::Vec;

use undercroft_hal::clock::{Duration, Instant};
use undercroft_hal::context::{self, Kind};
use undercroft_hal::hosted::Cpus;
use undercroft_hal::sync::{IrqSpinLock, Rank, SpinLock};
use undercroft_hal::{BottomHalf, HardIrq, Task};

use crate::broken::{self, Hazard};
use crate::*;

const START: u64 = 1 << 30;

fn on_one_cpu(f: impl FnOnce(&Task, &Arc<Cpus>)) {
    let cpus = Cpus::with_manual_clock(1, START);
    cpus.run(0, |task| {
        timers::start_service(task);
        f(task, &cpus);
        // What was let go is freed.
        for _ in 0..4 {
            task.run_pending();
        }
    });
}

fn pass(task: &Task, cpus: &Cpus, by: Duration) {
    cpus.advance(by);
    for _ in 0..4 {
        task.run_pending();
    }
}

const MS: Duration = Duration::from_millis(1);

fn counter() -> (Arc<AtomicUsize>, impl FnMut() + Send) {
    let count = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&count);
    (count, move || _ = theirs.fetch_add(1, SeqCst))
}

#[test]
fn it_runs_once_at_its_time_at_its_level() {
    fn one<L: Level>(kind: Kind) {
        on_one_cpu(|task, cpus| {
            let (count, mut run) = counter();
            let callout = Callout::<L>::new(0, move |_, expiry| {
                assert_eq!(context::current(), kind);
                assert!(expiry.now() >= expiry.deadline() && expiry.missed() == 0);
                run();
            });
            assert_eq!(callout.start(MS), Ok(Started::Armed));
            assert_eq!(callout.when(), Some(Instant::now() + MS));
            pass(task, cpus, MS - Duration::from_nanos(1));
            assert_eq!(count.load(SeqCst), 0, "early");
            pass(task, cpus, Duration::from_nanos(1024));
            assert_eq!(count.load(SeqCst), 1);
            assert!(!callout.is_armed() && !callout.is_running());
            pass(task, cpus, MS * 10);
            assert_eq!(count.load(SeqCst), 1);
            assert_eq!(timers::stats(0).fired, 1);
        });
    }
    one::<HardIrq>(Kind::HardIrq);
    one::<BottomHalf>(Kind::BottomHalf);
    one::<Task>(Kind::Task);
}

#[test]
fn a_stop_says_what_it_found() {
    on_one_cpu(|task, cpus| {
        let (count, mut run) = counter();
        let callout: Callout = Callout::new(0, move |_, _| run());
        assert_eq!(callout.stop(), Stopped::NotArmed);
        assert_eq!(callout.start(MS), Ok(Started::Armed));
        assert_eq!(callout.start(MS * 2), Ok(Started::Replaced));
        assert_eq!(callout.stop(), Stopped::Cancelled);
        pass(task, cpus, MS * 4);
        assert_eq!(count.load(SeqCst), 0);
        assert_eq!(callout.drain(task), Ok(Stopped::NotArmed));
        assert_eq!(callout.close(task), Ok(()));
    });
}

#[test]
fn a_handler_sees_itself_in_flight() {
    on_one_cpu(|task, cpus| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&seen);
        let callout: Callout = Callout::new(0, move |_: &BottomHalf, expiry: &Expiry| {
            let me = expiry.callout();
            assert!(!expiry.superseded());
            let mut seen = theirs.lock().unwrap();
            seen.push(me.stop());
            assert!(expiry.superseded());
            assert_eq!(me.start(MS), Ok(Started::ParkedInFlight));
            seen.push(me.stop());
        });
        let _ = callout.start(MS);
        pass(task, cpus, MS * 2);
        assert_eq!(*seen.lock().unwrap(), [Stopped::InFlight, Stopped::CancelledNextInFlight]);
        assert!(!callout.is_armed());
    });
}

#[test]
fn a_period_runs_without_drift_and_counts_what_it_missed() {
    on_one_cpu(|task, cpus| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&seen);
        let callout: Callout = Callout::new(0, move |_: &BottomHalf, expiry: &Expiry| {
            theirs.lock().unwrap().push((expiry.deadline().as_nanos() - START, expiry.missed()));
            Next::Every(MS)
        });
        let _ = callout.start_at(Instant::from_nanos(START) + MS);
        pass(task, cpus, MS + Duration::from_micros(300));
        pass(task, cpus, MS);
        pass(task, cpus, MS * 5);
        pass(task, cpus, MS);
        assert_eq!(*seen.lock().unwrap(), [(1_000_000, 0), (2_000_000, 0), (3_000_000, 0), (8_000_000, 4)]);
        assert_eq!(callout.stop(), Stopped::Cancelled);
        assert_eq!(timers::stats(0).missed, 4);
    });
}

#[test]
fn completions_and_futures_come_when_the_run_is_over() {
    on_one_cpu(|task, cpus| {
        let (count, mut run) = counter();
        let (seen, order) = (Arc::clone(&count), Arc::new(AtomicUsize::new(usize::MAX)));
        let theirs = Arc::clone(&order);
        let callout: Callout = Callout::new(0, move |_: &BottomHalf, expiry: &Expiry| {
            for _ in 0..2 {
                let (theirs, seen) = (Arc::clone(&theirs), Arc::clone(&seen));
                let drained = expiry.callout().drain_async(Completion::new(move |_| {
                    assert_eq!(context::current(), Kind::BottomHalf);
                    theirs.store(seen.load(SeqCst), SeqCst);
                }));
                assert!(matches!(drained, Drained::Later));
            }
            assert_eq!(expiry.callout().start(MS), Err(StartError::Draining));
            run();
        });
        let _ = callout.start(MS);
        pass(task, cpus, MS * 2);
        assert_eq!((count.load(SeqCst), order.load(SeqCst)), (1, 1));
        assert_eq!(task.block_on(callout.drained()), Stopped::NotArmed);
        assert!(matches!(callout.drain_async(Completion::new(|_| panic!("nothing to wait for"))), Drained::Now(_)));
        assert_eq!(callout.start(MS), Ok(Started::Armed), "open again");
        assert_eq!(task.block_on(callout.closed()), Stopped::Cancelled);
    });
}

#[test]
fn a_guarded_callout_runs_with_its_lock() {
    on_one_cpu(|task, cpus| {
        let lock = Arc::new(SpinLock::new(Rank::DEVICE, 0u32));
        let guarded: Guarded<SpinLock<u32>> =
            Guarded::new(0, Arc::clone(&lock), |_: &BottomHalf, data: &mut u32, _: &Expiry| *data += 1).unwrap();
        let _ = guarded.start(MS);
        pass(task, cpus, MS * 2);
        assert_eq!(*lock.lock(task), 1);
        let _ = guarded.start(MS);
        let other = SpinLock::new(Rank::QUEUE, 0);
        assert_eq!(guarded.stop(&mut other.lock(task)), Err(WrongLock));
        assert_eq!(guarded.stop(&mut lock.lock(task)), Ok(Stopped::Cancelled));
        pass(task, cpus, MS * 2);
        assert_eq!(*lock.lock(task), 1);
        let high = Arc::new(IrqSpinLock::new(Rank::HEAP, ()));
        let refused = Guarded::<_, HardIrq>::new(0, high, |_, (): &mut (), _| ());
        assert_eq!(refused.err(), Some(BindError::Rank));
    });
}

#[test]
fn a_scope_closes_all() {
    on_one_cpu(|task, cpus| {
        let mut scope = Scope::new();
        let (count, mut run) = counter();
        let a = scope.callout::<BottomHalf, _>(0, move |_, _| run());
        let b = scope.callout::<Task, _>(0, |_, _| ());
        let _ = (a.start(MS), b.start(MS));
        scope.close_all(task).unwrap();
        assert_eq!(a.start(MS), Err(StartError::Closed));
        pass(task, cpus, MS * 2);
        assert_eq!(count.load(SeqCst), 0);
        let mut scope = Scope::new();
        let c = scope.callout::<HardIrq, _>(0, |_, _| ());
        let _ = c.start(MS);
        let (done, mut mark) = counter();
        scope.close_all_async(Completion::new(move |_| mark()));
        assert!(!c.is_armed());
        task.run_pending();
        assert_eq!(done.load(SeqCst), 1);
        let mut scope = Scope::new();
        let d = scope.callout::<BottomHalf, _>(0, |_, _| ());
        let _ = d.start(MS);
        let _ = task.block_on(scope.closed());
        assert!(!d.is_armed());
        let mut scope = Scope::new();
        let e = scope.callout::<BottomHalf, _>(0, |_, _| ());
        drop(scope);
        assert_eq!(e.start(MS), Err(StartError::Closed));
    });
}

#[test]
fn next_of_n_runs_each_timer_at_its_time() {
    on_one_cpu(|task, cpus| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&seen);
        let timers =
            NextOfN::<3>::new(0, move |_, index, expiry| theirs.lock().unwrap().push((index, expiry.now().as_nanos())));
        let at = |ms: u32| Instant::from_nanos(START) + MS * ms;
        timers.set(0, at(3)).unwrap();
        timers.set(1, at(1)).unwrap();
        timers.set(2, at(2)).unwrap();
        assert_eq!(timers.set(3, at(2)), Err(StartError::Closed));
        assert_eq!(timers.clear(2), Some(at(2)));
        pass(task, cpus, MS * 5 / 4);
        pass(task, cpus, MS * 5 / 4);
        pass(task, cpus, MS * 5 / 4);
        let seen: Vec<_> = seen.lock().unwrap().iter().map(|(index, _)| *index).collect();
        assert_eq!(seen, [1, 0]);
        timers.close(task).unwrap();
    });
}

/// Callouts of every level go to other CPUs and back; from then on they run there, whoever starts them.
fn bound_to_cpus() {
    fn one<L: Level>() {
        let cpus = Cpus::new(2);
        let over = AtomicUsize::new(0);
        let mut ran = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| cpus.run(1, |task| task.wait_until(|| over.load(SeqCst) > 0)));
            cpus.run(0, |task| {
                timers::start_service(task);
                let seen = Arc::new(AtomicUsize::new(usize::MAX));
                let theirs = Arc::clone(&seen);
                let callout = Callout::<L>::new(0, move |_, _| theirs.store(undercroft_hal::cpu::current(), SeqCst));
                for to in [1, 0, 1] {
                    for again in [false, true] {
                        let started = if again { callout.start(MS) } else { callout.start_on(to, Instant::now() + MS) };
                        assert_eq!(started, Ok(Started::Armed));
                        while seen.load(SeqCst) == usize::MAX {
                            undercroft_hal::cpu::relax();
                            task.run_pending();
                        }
                        ran.push((to, seen.swap(usize::MAX, SeqCst)));
                        let _ = callout.drain(task).unwrap();
                    }
                }
                assert_eq!(callout.start_on(2, Instant::now()), Err(StartError::NoSuchCpu));
                over.store(1, SeqCst);
                undercroft_hal::cpu::kick(1);
            });
        });
        assert!(ran.iter().all(|(to, on)| to == on), "ran on a CPU that it is not bound to: {ran:?}");
    }
    one::<HardIrq>();
    one::<BottomHalf>();
    one::<Task>();
}

#[test]
fn p_18_callouts_go_to_other_cpus_and_run_there() {
    bound_to_cpus();
}

#[test]
#[should_panic(expected = "ran on a CPU that it is not bound to: [(1, 0)")]
fn p_18_callouts_go_to_other_cpus_and_run_there_control() {
    broken::with(Hazard::StaysWhereItIs, bound_to_cpus);
}

#[test]
fn starts_with_conditions() {
    on_one_cpu(|_, _| {
        let callout: Callout = Callout::new(0, |_, _| ());
        let at = |ms: u32| Instant::from_nanos(START) + MS * ms;
        assert_eq!(callout.start_if_armed(at(5)), Ok(None));
        assert_eq!(callout.start_if_sooner(at(5)), Ok(Some(Started::Armed)));
        assert_eq!(callout.start_if_sooner(at(5)), Ok(None));
        assert_eq!(callout.start_if_sooner(at(4)), Ok(Some(Started::Replaced)));
        assert_eq!(callout.start_if_armed(at(9)), Ok(Some(Started::Replaced)));
        assert_eq!(callout.when(), Some(at(9)));
    });
}

/// Two callouts with slack run in one interrupt; what is never to wake its CPU waits for that too.
#[test]
fn slack_and_deferrables_wait_for_company() {
    on_one_cpu(|task, cpus| {
        let (count, mut run) = counter();
        let deferrable: Callout = Callout::new(0, move |_, _| run()).deferrable();
        let _ = deferrable.start(MS);
        assert_eq!(timers::next_event(0), None, "it does not set the alarm");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let slack = |delay: u32| {
            let seen = Arc::clone(&seen);
            let callout: Callout =
                Callout::new(0, move |_: &BottomHalf, e: &Expiry| seen.lock().unwrap().push(e.now())).slack(MS * 4);
            let _ = callout.start(Duration::from_micros(delay.into()));
            callout
        };
        let (_a, _b, _c) = (slack(5_100), slack(5_700), slack(6_200));
        let exact: Callout = Callout::new(0, |_, _| ());
        let _ = exact.start_within(Instant::now() + MS * 20, Duration::ZERO);
        let before = undercroft_hal::irq::taken(0).alarm;
        task.wait_until(|| seen.lock().unwrap().len() == 3);
        let times = seen.lock().unwrap().clone();
        assert!(times.iter().all(|now| *now == times[0]), "together: {times:?}");
        assert_eq!(undercroft_hal::irq::taken(0).alarm - before, 1);
        pass(task, cpus, Duration::ZERO);
        assert_eq!(count.load(SeqCst), 1, "with the others");
    });
}

/// From another CPU, while the handler runs: every way to wait for its end.
#[test]
fn all_ways_to_wait_from_another_cpu() {
    fn one(way: impl Fn(&Task, Callout<HardIrq>, &Arc<AtomicUsize>)) {
        let cpus = Cpus::new(2);
        let (at_work, go, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| cpus.run(1, |task| task.wait_until(|| over.load(SeqCst) > 0)));
            cpus.run(0, |task| {
                timers::start_service(task);
                let (marks, goes) = (Arc::clone(&at_work), Arc::clone(&go));
                let callout = Callout::<HardIrq>::new(1, move |_, _| {
                    marks.store(1, SeqCst);
                    while goes.load(SeqCst) == 0 {
                        std::thread::yield_now();
                    }
                    marks.store(2, SeqCst);
                });
                let _ = callout.start(Duration::ZERO);
                while at_work.load(SeqCst) == 0 {
                    std::thread::yield_now();
                }
                assert!(callout.is_running());
                let soon = Arc::clone(&go);
                let releaser = std::thread::spawn(move || {
                    std::thread::sleep(core::time::Duration::from_millis(2));
                    soon.store(1, SeqCst);
                });
                way(task, callout, &at_work);
                assert_eq!(at_work.load(SeqCst), 2, "the handler was over");
                releaser.join().unwrap();
                over.store(1, SeqCst);
                undercroft_hal::cpu::kick(1);
            });
        });
    }
    one(|task, callout, _| assert_eq!(callout.drain(task), Ok(Stopped::InFlight)));
    one(|task, callout, _| callout.close(task).unwrap());
    one(|task, callout, _| assert_eq!(task.block_on(callout.drained()), Stopped::InFlight));
    one(|task, callout, _| assert_eq!(task.block_on(callout.closed()), Stopped::InFlight));
    one(|task, callout, _| {
        let lock = SpinLock::new(Rank::DEVICE, 5);
        let (answer, guard) = callout.drain_with(task, lock.lock(task));
        assert_eq!((answer, *guard), (Ok(Stopped::InFlight), 5));
    });
    one(|task, callout, at_work| {
        let done = Arc::new(AtomicUsize::new(0));
        let (marks, seen) = (Arc::clone(&done), Arc::clone(at_work));
        let drained = callout.close_async(Completion::new(move |_| marks.store(seen.load(SeqCst), SeqCst)));
        assert!(matches!(drained, Drained::Later));
        while done.load(SeqCst) == 0 {
            undercroft_hal::cpu::relax();
            task.run_pending();
        }
        assert_eq!(done.load(SeqCst), 2);
    });
}
