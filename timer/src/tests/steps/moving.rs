//! From one CPU's wheel to another's.

use std::sync::atomic::Ordering::SeqCst;

use crate::clockwork::Request;
use crate::next::Next;
use crate::outcome::{Started, Stopped};
use crate::tests::scene::scene;

proves! {
    fn t_11_t_24_nobody_waits_for_a_transit = met_in_transit;
    fn t_22_the_owner_does_not_change_in_flight = moved_in_flight;
    fn t_23_never_two_wheels = both_ways;
    fn t_25_not_here_and_there_at_once = moved_in_flight;
    fn w_08_cancelled_before_it_arrives = met_in_transit;
    fn w_11_the_owner_is_looked_at_again = wrong_home;
    fn i_01_one_handler_at_a_time = moved_in_flight;
}

controls! {
    fn t_11_t_24_control_transit_unchecked = met_in_transit, TransitUnchecked, "arrived though it was stopped";
    fn t_22_control_moved_in_flight = moved_in_flight, MovedInFlight, "still its executor's";
    fn t_23_control_both_locks = both_ways, BothLocks, "lock order recursion";
    fn t_25_control_moved_in_flight = moved_in_flight, MovedInFlight, "still its executor's";
    fn w_08_control_transit_unchecked = met_in_transit, TransitUnchecked, "arrived though it was stopped";
    fn w_11_control_home_unchecked = wrong_home, HomeUnchecked, "another wheel's callout";
    fn i_01_control_moved_in_flight = moved_in_flight, MovedInFlight, "still its executor's";
}

/// T-11, T-24, W-08: the mover is between the two wheels when others come, on the same CPU too: they are answered at once, and what the
/// mover does after that is void.
fn met_in_transit() {
    scene(3, |s| {
        let (node, count) = s.counting();
        let _ = s.start(&node, 5_000);
        let away = |to| Request::on(to, 6_000);
        let (started, transit) = s.w(0).start(&node, away(1)).unwrap();
        assert_eq!(started, Some(Started::Replaced));
        assert_eq!(s.status(&node), (Some(6_000), false), "on its way it is armed");
        assert_eq!(s.wheels.stop(&node, false), Stopped::Cancelled);
        s.w(1).arrive(&node, transit.unwrap());
        assert_eq!(s.status(&node), (None, false), "arrived though it was stopped");
        // Replaced, and moved on, on its way.
        let (_, transit) = s.w(1).start(&node, away(0)).unwrap();
        assert_eq!(s.start(&node, 9_000), Ok(Some(Started::Replaced)));
        s.w(0).arrive(&node, transit.unwrap());
        assert_eq!((s.status(&node), s.armed(0)), ((Some(9_000), false), 1));
        let (_, first) = s.w(0).start(&node, away(1)).unwrap();
        let (_, second) = s.w(1).start(&node, away(2)).unwrap();
        s.w(1).arrive(&node, first.unwrap());
        assert_eq!(s.w(1).shelf.armed(), 0);
        s.w(2).arrive(&node, second.unwrap());
        assert_eq!(s.w(2).shelf.armed(), 1);
        s.run_until(100_000);
        assert_eq!(count.load(SeqCst), 1);
    });
}

/// T-22, T-25, I-1: the handler runs on CPU 0 and the callout is started on CPU 1.
fn moved_in_flight() {
    scene(2, |s| {
        let (node, count) = s.counting();
        let mut flight = s.commit(&node);
        assert!(s.enter(&mut flight));
        let at = s.now() + 1_000;
        let _ = s.start_on(&node, 1, at);
        assert!(s.status(&node).1, "still its executor's");
        let _ = s.w(1).take_due(at + 5_000);
        assert!(s.w(1).commit(node.kind()).is_none(), "twice at once");
        let draining = s.wheels.drain_on(&node, false, Some(0)).unwrap();
        assert!(draining.flight.is_some(), "still its executor's");
        s.end(flight, Next::Done);
        let _ = s.start_on(&node, 1, at + 20_000);
        s.run_until(at + 100_000);
        assert_eq!(count.load(SeqCst), 1);
        assert_eq!(s.wheels.stats(1).fired, 1);
    });
}

/// T-23: one callout goes from 0 to 1 and one from 1 to 0. The hal's check of lock ranks sees two wheels locked on one CPU.
fn both_ways() {
    scene(2, |s| {
        let ((a, _), (b, _)) = (s.counting(), s.counting());
        let _ = (s.start_on(&a, 0, 5_000), s.start_on(&b, 1, 5_000));
        let _ = (s.start_on(&a, 1, 5_000), s.start_on(&b, 0, 5_000));
        assert_eq!((s.armed(0), s.armed(1)), (1, 1));
    });
}

/// W-11: between a look at the home and its lock, the callout went elsewhere.
fn wrong_home() {
    scene(2, |s| {
        let (node, _) = s.counting();
        let _ = s.start_on(&node, 1, 5_000);
        assert!(s.w(0).shelf.open(&node).is_none(), "another wheel's callout");
        assert_eq!(s.w(0).stop(&node, false), Stopped::NotArmed);
        assert_eq!(s.wheels.stop(&node, false), Stopped::Cancelled);
    });
}
