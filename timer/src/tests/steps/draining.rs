//! Drain, close and their completions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use crate::next::Next;
use crate::outcome::{StartError, Started, Stopped};
use crate::tests::scene::{Asked, Lock, Scene, scene};

proves! {
    fn t_02_every_pattern_frees_once = every_pattern;
    fn t_04_drained_while_running_and_armed_again = running_and_armed;
    fn t_05_two_drains = two_drains;
    fn t_06_started_after_the_drain_was_accepted = start_after_drain;
    fn t_07_t_03_the_completion_comes_after_the_lock = completion_after_lock;
    fn t_15_committed_is_in_flight = committed;
    fn t_26_a_parked_request_and_a_drain = running_and_armed;
    fn t_29_those_who_wait_are_woken = wakes_who_waits;
    fn t_31_the_drain_waits_for_its_run = own_run;
    fn t_32_refusal_is_a_state = start_after_drain;
    fn t_34_started_again_after_the_close = start_after_close;
    fn t_35_removed_and_running = removed_and_running;
    fn t_40_three_cpus = three_cpus;
    fn t_41_another_run_is_not_waited_for = own_run;
    fn i_04_after_the_drain_all_is_quiet = running_and_armed;
    fn i_05_one_completion_for_each_drain = two_drains;
}

controls! {
    fn t_02_control_does_not_wait = every_pattern, DrainDoesNotWait, "freed while a run is in flight";
    fn t_04_control_next_survives = running_and_armed, NextSurvivesDrain, "armed after the drain";
    fn t_05_control_one_waiter = two_drains, OneWaiter, "each drain has its completion";
    fn t_06_control_starts_while_draining = start_after_drain, StartsWhileDraining, "a start is refused";
    fn t_07_control_completes_early = completion_after_lock, CompletesEarly, "completed with the lock held";
    fn t_15_control_does_not_wait = committed, DrainDoesNotWait, "somebody must wait";
    fn t_26_control_next_survives = running_and_armed, NextSurvivesDrain, "armed after the drain";
    fn t_29_control_wakes_home = wakes_who_waits, WakesHome, "the one that waits is woken";
    fn t_31_control_any_run = own_run, WaitsForAnyRun, "waits for a run that is not its own";
    fn t_32_control_starts_while_draining = start_after_drain, StartsWhileDraining, "a start is refused";
    fn t_34_control_starts_after_close = start_after_close, StartsAfterClose, "closed for ever";
    fn t_35_control_removed_means_idle = removed_and_running, RemovedMeansIdle, "somebody must wait";
    fn t_40_control_starts_after_close = three_cpus, StartsAfterClose, "closed for ever";
    fn t_41_control_any_run = own_run, WaitsForAnyRun, "waits for a run that is not its own";
    fn i_04_control_next_survives = running_and_armed, NextSurvivesDrain, "armed after the drain";
    fn i_05_control_one_waiter = two_drains, OneWaiter, "each drain has its completion";
}

/// T-02: three callouts of one object, each in flight or not, each run ending before or after the teardown drains the next.
fn every_pattern() {
    for pattern in 0..1u32 << 6 {
        // An executor has one run at a time: each callout has a CPU of its own.
        scene(3, |s| {
            let count = Arc::new(AtomicUsize::new(4));
            let flying = Arc::new(AtomicUsize::new(0));
            let freed = Arc::new(AtomicUsize::new(0));
            let less = {
                let (count, flying, freed) = (Arc::clone(&count), Arc::clone(&flying), Arc::clone(&freed));
                move || {
                    if count.fetch_sub(1, SeqCst) == 1 {
                        assert_eq!(flying.load(SeqCst), 0, "freed while a run is in flight");
                        freed.fetch_add(1, SeqCst);
                    }
                }
            };
            let mut flights = std::vec::Vec::new();
            let nodes: [_; 3] = core::array::from_fn(|index| {
                let node = s.node(|_| Next::Done);
                assert_eq!(s.start_on(&node, index, s.now() + 1_000_000), Ok(Some(Started::Armed)));
                if pattern & 1 << index != 0 {
                    flights.push((index, s.commit(&node)));
                    flying.fetch_add(1, SeqCst);
                }
                node
            });
            let end_of = |flights: &mut std::vec::Vec<_>, index| {
                if let Some(at) = flights.iter().position(|(this, _)| *this == index) {
                    flying.fetch_sub(1, SeqCst);
                    s.finish(flights.remove(at).1);
                    s.chores(index);
                }
            };
            for (index, node) in nodes.iter().enumerate() {
                if s.drain(node, true, less.clone()) {
                    less();
                }
                if pattern & 8 << index != 0 {
                    end_of(&mut flights, index);
                }
            }
            less();
            (0..3).for_each(|index| end_of(&mut flights, index));
            assert_eq!(freed.load(SeqCst), 1, "freed once");
        });
    }
}

/// T-04, T-26: the handler runs and has started its callout again when somebody drains.
fn running_and_armed() {
    scene(1, |s| {
        let (node, count) = s.counting();
        let mut flight = s.commit(&node);
        assert!(s.enter(&mut flight));
        assert_eq!(s.start(&node, s.now() + 5_000), Ok(Some(Started::ParkedInFlight)));
        let draining = s.wheels.drain_on(&node, false, Some(0)).unwrap();
        assert_eq!(draining.stopped, Stopped::CancelledNextInFlight);
        assert!(!s.wheels.is_over(&node, draining.flight.unwrap()));
        // Nor does what the handler asks for count.
        s.end(flight, Next::After(undercroft_hal::Duration::from_nanos(10)));
        assert!(s.wheels.is_over(&node, draining.flight.unwrap()));
        assert_eq!(s.status(&node), (None, false), "armed after the drain");
        s.run_until(s.now() + 100_000);
        assert_eq!(count.load(SeqCst), 0, "armed after the drain");
    });
}

fn counted() -> (Arc<AtomicUsize>, impl Fn() + Clone + Send + 'static) {
    let count = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&count);
    (count, move || _ = theirs.fetch_add(1, SeqCst))
}

/// T-05.
fn two_drains() {
    scene(1, |s| {
        let (node, _) = s.counting();
        let flight = s.commit(&node);
        let (count, done) = counted();
        for _ in 0..3 {
            assert!(!s.drain(&node, false, done.clone()), "in flight");
        }
        s.chores(0);
        assert_eq!(count.load(SeqCst), 0, "completed while in flight");
        s.finish(flight);
        s.chores(0);
        assert_eq!(count.load(SeqCst), 3, "each drain has its completion");
        s.chores(0);
        assert!(s.drain(&node, false, || panic!("given back")), "nothing to wait for");
    });
}

/// T-06, T-32: refused from the drain's acceptance to its end, whoever asks; accepted after that.
fn start_after_drain() {
    scene(1, |s| {
        let (node, _) = s.counting();
        let mut flight = s.commit(&node);
        assert!(s.enter(&mut flight));
        assert!(!s.drain(&node, false, || ()));
        assert_eq!(s.start(&node, 5), Err(StartError::Draining), "a start is refused");
        assert_eq!(s.start_on(&node, 0, 5), Err(StartError::Draining), "a start is refused");
        s.end(flight, Next::Done);
        s.chores(0);
        assert_eq!(s.status(&node), (None, false));
        assert_eq!(s.start(&node, s.now() + 5), Ok(Some(Started::Armed)));
    });
}

/// T-07, T-03: a lock-bound callout is drained while its handler runs: when the completion runs, its lock is free.
fn completion_after_lock() {
    scene(1, |s| {
        let lock = Arc::new(Lock::default());
        let node = s.bound(&lock, |_| Next::Done);
        let mut flight = s.commit(&node);
        assert!(lock.try_lock() && s.enter(&mut flight));
        let theirs = Arc::clone(&lock);
        assert!(!s.drain(&node, true, move || assert!(!theirs.is_held(), "completed with the lock held")));
        let now = s.now();
        s.w(0).leave(&mut flight, Next::Done, now);
        s.chores(0);
        lock.unlock();
        s.finish(flight);
        s.chores(0);
        // The same for one that was cancelled while its executor waited for the lock.
        let node = s.bound(&lock, |_| Next::Done);
        let mut flight = s.commit(&node);
        let (count, done) = counted();
        assert!(!s.drain(&node, true, done));
        assert!(lock.try_lock() && !s.enter(&mut flight));
        s.chores(0);
        assert_eq!(count.load(SeqCst), 0);
        lock.unlock();
        s.finish(flight);
        s.chores(0);
        assert_eq!(count.load(SeqCst), 1);
    });
}

/// T-15: an interrupt comes between the commitment and the handler, on the same CPU: it learns that there is something to wait for, and
/// does not wait.
fn committed() {
    scene(1, |s| {
        let (node, _) = s.counting();
        let flight = s.commit(&node);
        assert_eq!(s.wheels.stop(&node, false), Stopped::InFlight);
        let over = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&over);
        assert!(!s.drain(&node, true, move || theirs.store(true, SeqCst)), "somebody must wait");
        s.chores(0);
        assert!(!over.load(SeqCst));
        s.finish(flight);
        s.chores(0);
        assert!(over.load(SeqCst));
    });
}

/// T-29: a task of CPU 2 waits for a callout of CPU 0.
fn wakes_who_waits() {
    scene(3, |s| {
        let (node, _) = s.counting();
        let flight = s.commit(&node);
        let _ = s.wheels.drain_on(&node, false, Some(2)).unwrap();
        let _ = s.asked();
        s.finish(flight);
        assert!(s.asked().contains(&Asked::Kick(2)), "the one that waits is woken");
    });
}

/// T-31, T-41: the run that was waited for ends, and another begins before the waiter looks.
fn own_run() {
    scene(1, |s| {
        let (node, _) = s.counting();
        let flight = s.commit(&node);
        let draining = s.wheels.drain_on(&node, false, Some(0)).unwrap();
        s.finish(flight);
        let again = s.commit(&node);
        assert!(s.wheels.is_over(&node, draining.flight.unwrap()), "waits for a run that is not its own");
        s.finish(again);
    });
}

/// T-34: the handler runs, its callout is closed, and it starts itself.
fn start_after_close() {
    scene(1, |s| {
        let (node, _) = s.counting();
        let mut flight = s.commit(&node);
        assert!(s.enter(&mut flight));
        let closing = s.wheels.drain_on(&node, true, Some(0)).unwrap();
        assert_eq!(closing.stopped, Stopped::InFlight);
        assert_eq!(s.start(&node, s.now() + 5), Err(StartError::Closed), "closed for ever");
        s.end(flight, Next::Every(undercroft_hal::Duration::from_nanos(5)));
        assert_eq!(s.start(&node, s.now() + 5), Err(StartError::Closed), "closed for ever");
        assert_eq!(s.status(&node), (None, false));
    });
}

/// T-35: something was removed, and something runs.
fn removed_and_running() {
    scene(1, |s: &Scene| {
        let (node, _) = s.counting();
        let mut flight = s.commit(&node);
        assert!(s.enter(&mut flight));
        let _ = s.start(&node, s.now() + 5_000);
        assert!(!s.drain(&node, false, || ()), "somebody must wait");
        s.finish(flight);
    });
}

/// T-40: CPU 0 ends a run, CPU 1 closes, CPU 2 starts: in every order nothing is armed after the close.
fn three_cpus() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        scene(3, |s| {
            let (node, _) = s.counting();
            let mut flight = Some(s.commit(&node));
            let mut closing = None;
            for cpu in order {
                match cpu {
                    0 => s.finish(flight.take().unwrap()),
                    1 => closing = s.wheels.drain_on(&node, true, Some(1)),
                    _ => {
                        let answer = s.start_on(&node, 2, s.now() + 5_000);
                        assert_eq!(answer.is_err(), closing.is_some(), "closed for ever");
                    }
                }
            }
            let flight = closing.unwrap().flight;
            assert!(flight.is_none_or(|flight| s.wheels.is_over(&node, flight)));
            assert_eq!(s.status(&node), (None, false));
        });
    }
}
