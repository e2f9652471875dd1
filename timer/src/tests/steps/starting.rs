//! Start and stop, against a run that is in flight.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use undercroft_hal::Duration;

use crate::next::Next;
use crate::outcome::{Started, Stopped};
use crate::tests::scene::{Lock, scene};

proves! {
    fn t_09_parked_is_armed_and_the_flight_is_void = parked_is_armed;
    fn t_10_started_twice_while_parked = parked_twice;
    fn t_18_no_client_erases_the_flight = flight_erased;
    fn t_20_a_stale_expiry_does_not_run = stale;
    fn t_27_stopped_while_running_and_parked = stop_parked;
    fn w_07_stopped_at_its_tick = stopped_when_due;
    fn w_15_a_period_stopped_in_its_handler = period_stopped;
    fn w_20_armed_or_running_at_every_step = every_step;
    fn w_21_a_start_beats_the_period = period_and_start;
    fn i_02_a_stopped_generation_does_not_run = stale;
    fn i_03_four_answers = four_answers;
    fn i_12_parked_is_armed = every_step;
}

controls! {
    fn t_09_control_parked_is_not_armed = parked_is_armed, ParkedIsNotArmed, "parked counts as armed";
    fn t_09_control_stale_runs = parked_is_armed, StaleRuns, "the handler does not run for it";
    fn t_10_control_parked_twice = parked_twice, ParkedTwice, "armed in state Running";
    fn t_18_control_start_erases_flight = flight_erased, StartErasesFlight, "still in flight";
    fn t_20_control_stale_runs = stale, StaleRuns, "the handler does not run for it";
    fn t_27_control_next_survives_stop = stop_parked, NextSurvivesStop, "ran though it was stopped";
    fn w_07_control_left_on_list = stopped_when_due, LeftOnList, "the others run";
    fn w_15_control_period_survives_stop = period_stopped, PeriodSurvivesStop, "stopped for good";
    fn w_20_control_parked_is_not_armed = every_step, ParkedIsNotArmed, "armed all the time";
    fn w_21_control_period_replaces_start = period_and_start, PeriodReplacesStart, "the start stands";
    fn i_02_control_stale_runs = stale, StaleRuns, "the handler does not run for it";
    fn i_03_control_flight_erased = four_answers, StartErasesFlight, "in flight, with a next";
    fn i_12_control_parked_is_not_armed = every_step, ParkedIsNotArmed, "armed all the time";
}

/// T-09: the executor is committed and waits for the lock; the callout is started for another CPU.
fn parked_is_armed() {
    scene(2, |s| {
        let lock = Arc::new(Lock::default());
        let node = s.bound(&lock, |_| Next::Done);
        let mut flight = s.commit(&node);
        let at = s.now() + 50_000;
        assert_eq!(s.start_on(&node, 1, at), Ok(Some(Started::Replaced)));
        assert_eq!(s.status(&node).0, Some(at), "parked counts as armed");
        assert!(lock.try_lock());
        assert!(!s.enter(&mut flight), "the handler does not run for it");
        lock.unlock();
        s.finish(flight);
        assert_eq!(s.status(&node), (Some(at), false));
        s.set_time(at + 2_000);
        assert!(s.w(0).commit(node.kind()).is_none());
        let _ = s.w(1).take_due(at + 2_000);
        assert!(s.w(1).commit(node.kind()).is_some(), "it runs on the other CPU");
    });
}

/// T-10: D1711.
fn parked_twice() {
    scene(2, |s| {
        let (node, count) = s.counting();
        let mut flight = s.commit(&node);
        assert!(s.enter(&mut flight));
        assert_eq!(s.start(&node, s.now() + 90_000), Ok(Some(Started::ParkedInFlight)));
        assert_eq!(s.start(&node, s.now() + 40_000), Ok(Some(Started::ParkedInFlight)));
        assert_eq!(s.start_on(&node, 1, s.now() + 20_000), Ok(Some(Started::ParkedInFlight)));
        s.end(flight, Next::Done);
        s.run_until(s.now() + 200_000);
        assert_eq!(count.load(SeqCst), 1, "the last start, once");
    });
}

/// T-18: committed, started, stopped: the flight is still there.
fn flight_erased() {
    scene(1, |s| {
        let (node, _) = s.counting();
        let flight = s.commit(&node);
        let _ = s.start(&node, s.now() + 500);
        assert!(s.wheels.stop(&node, false).is_in_flight(), "still in flight");
        assert!(!s.drain(&node, true, || ()), "still in flight");
        s.finish(flight);
    });
}

/// T-20, I-2: a lock-bound callout is started anew between commitment and lock: once, at the new time. One without a lock can tell.
fn stale() {
    scene(1, |s| {
        let lock = Arc::new(Lock::default());
        let node = s.bound(&lock, |_| Next::Done);
        let mut flight = s.commit(&node);
        let at = s.now() + 500_000;
        let _ = s.start(&node, at);
        assert!(lock.try_lock());
        assert!(!s.enter(&mut flight), "the handler does not run for it");
        lock.unlock();
        s.finish(flight);
        assert_eq!(s.status(&node), (Some(at), false));
        let mut flight = s.commit(&node);
        assert!(lock.try_lock() && s.enter(&mut flight));
        lock.unlock();
        s.finish(flight);
        let free = s.node(|_| Next::Done);
        let flight = s.commit(&free);
        let _ = s.start(&free, at * 2);
        assert_ne!(s.wheels.generation(&free), Some(flight.generation), "superseded");
        s.finish(flight);
    });
}

/// T-27.
fn stop_parked() {
    scene(1, |s| {
        let (node, count) = s.counting();
        let mut flight = s.commit(&node);
        assert!(s.enter(&mut flight));
        let _ = s.start(&node, s.now() + 5_000);
        assert_eq!(s.wheels.stop(&node, false), Stopped::CancelledNextInFlight);
        s.end(flight, Next::Done);
        s.run_until(s.now() + 100_000);
        assert_eq!(count.load(SeqCst), 0, "ran though it was stopped");
    });
}

/// W-07: two are due, off the wheel, and the first is stopped.
fn stopped_when_due() {
    scene(1, |s| {
        let ((first, _), (second, count)) = (s.counting(), s.counting());
        let _ = (s.start(&first, 1_000), s.start(&second, 3_000));
        s.set_time(5_000);
        let _ = s.w(0).take_due(5_000);
        assert_eq!((s.status(&first).0, s.status(&second).0), (Some(1_000), Some(3_000)));
        assert_eq!(s.wheels.stop(&first, false), Stopped::Cancelled);
        while let Some(flight) = s.take(0) {
            s.wheels.attempt(0, &crate::tests::scene::BH, 5_000, flight);
        }
        assert_eq!(count.load(SeqCst), 1, "the others run");
        assert_eq!(s.w(0).shelf.armed(), 0);
    });
}

/// W-15: a periodic callout is stopped while its handler runs, and by its handler.
fn period_stopped() {
    scene(1, |s| {
        let (node, _) = s.counting();
        let mut flight = s.commit(&node);
        assert!(s.enter(&mut flight));
        assert_eq!(s.wheels.stop(&node, false), Stopped::InFlight);
        s.end(flight, Next::Every(Duration::from_nanos(100)));
        assert_eq!(s.status(&node), (None, false), "stopped for good");
    });
}

/// W-21: somebody starts the callout while its handler runs, which wants its next period.
fn period_and_start() {
    scene(1, |s| {
        let (node, _) = s.counting();
        let mut flight = s.commit(&node);
        assert!(s.enter(&mut flight));
        let at = s.now() + 77_000;
        let _ = s.start(&node, at);
        s.end(flight, Next::Every(Duration::from_nanos(100)));
        assert_eq!(s.status(&node), (Some(at), false), "the start stands");
        assert_eq!(s.w(0).shelf.armed(), 1);
    });
}

/// W-20, I-12: a periodic callout is seen armed or in flight after each step, and armed whenever it will run again.
fn every_step() {
    scene(1, |s| {
        let (node, _) = s.counting();
        let mut flight = s.commit(&node);
        for _ in 0..3 {
            assert!(s.status(&node).1);
            s.enter(&mut flight);
            assert!(s.status(&node).1);
            let now = s.now();
            s.w(0).leave(&mut flight, Next::After(Duration::from_micros(5)), now);
            assert!(s.status(&node).0.is_some() && s.status(&node).1, "armed all the time");
            s.finish(flight);
            assert!(s.status(&node).0.is_some() && !s.status(&node).1, "armed all the time");
            s.set_time(now + 10_000);
            let _ = s.w(0).take_due(now + 10_000);
            assert!(s.status(&node).0.is_some() && !s.status(&node).1, "armed all the time");
            flight = s.w(0).commit(node.kind()).unwrap();
        }
        s.finish(flight);
    });
}

/// I-3.
fn four_answers() {
    scene(1, |s| {
        let (node, _) = s.counting();
        assert_eq!(s.wheels.stop(&node, false), Stopped::NotArmed);
        let _ = s.start(&node, 5_000);
        assert_eq!(s.wheels.stop(&node, false), Stopped::Cancelled);
        let flight = s.commit(&node);
        assert_eq!(s.wheels.stop(&node, false), Stopped::InFlight);
        let _ = s.start(&node, 5_000);
        assert_eq!(s.wheels.stop(&node, false), Stopped::CancelledNextInFlight, "in flight, with a next");
        s.finish(flight);
    });
}
