//! The alarm, kicks, jumps of the clock.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use undercroft_hal::Duration;
use undercroft_hal::context::Kind;

use crate::executor::LONGEST_REST;
use crate::next::Next;
use crate::tests::scene::{Asked, BH, HARD, Scene, scene};

proves! {
    fn w_09_an_earlier_start_moves_the_alarm = earlier_start;
    fn w_10_an_alarm_that_is_past_is_set = past_alarm;
    fn w_17_a_jump_is_served_in_parts = jump;
    fn w_19_another_cpu_is_kicked = kicked;
    fn w_22_the_alarm_gives_up_for_a_while = storm;
    fn i_09_the_alarm_is_never_late = never_late;
    fn i_10_a_step_is_bounded = bounded;
}

controls! {
    fn w_09_control_alarm_not_moved = earlier_start, AlarmNotMoved, "the alarm comes too late";
    fn w_10_control_past_alarm_skipped = past_alarm, PastAlarmSkipped, "the alarm comes too late";
    fn w_17_control_steps_without_end = jump, StepsWithoutEnd, "more than one part at once";
    fn w_19_control_no_kick = kicked, NoKick, "nobody tells the other CPU";
    fn w_22_control_no_back_off = storm, NoBackOff, "the interrupt does not end";
    fn i_09_control_alarm_not_moved = never_late, AlarmNotMoved, "the alarm comes too late";
    fn i_10_control_steps_without_end = bounded, StepsWithoutEnd, "more than one part at once";
}

/// What the alarm of CPU 0 was set to last.
fn alarm(s: &Scene) -> Option<u64> {
    s.asked().iter().rev().find_map(|asked| if let Asked::Alarm(0, at) = asked { Some(*at) } else { None })
}

/// W-09.
fn earlier_start() {
    scene(1, |s| {
        let ((late, _), (early, _)) = (s.counting(), s.counting());
        let _ = s.start(&late, 1 << 40);
        assert!(alarm(s).is_some_and(|at| at <= (1 << 40) + 1024));
        let _ = s.start(&early, 1 << 20);
        assert!(alarm(s).is_some_and(|at| at <= (1 << 20) + 1024), "the alarm comes too late");
    });
}

/// W-10.
fn past_alarm() {
    scene(1, |s| {
        s.set_time(1 << 30);
        let _ = s.w(0).take_due(1 << 30);
        let (node, count) = s.counting();
        let _ = s.start(&node, 5);
        assert!(alarm(s).is_some_and(|at| at <= 1 << 30), "the alarm comes too late");
        s.wheels.interrupt(0, HARD, true);
        assert!(s.asked().contains(&Asked::Schedule(0, Kind::BottomHalf)));
        s.wheels.turn(0, BH);
        assert_eq!(count.load(SeqCst), 1);
    });
}

/// W-19: once, however many starts there are before the CPU looks.
fn kicked() {
    scene(2, |s| {
        let ((a, _), (b, _)) = (s.counting(), s.counting());
        let _ = s.start_on(&a, 1, 50_000);
        assert_eq!(s.asked(), [Asked::Kick(1)], "nobody tells the other CPU");
        let _ = s.start_on(&b, 1, 40_000);
        assert_eq!(s.asked(), [], "it has not looked since");
        s.be(1);
        s.wheels.interrupt(1, HARD, false);
        assert!(matches!(s.asked()[..], [Asked::Alarm(1, at)] if at <= 41_024));
        s.be(0);
        let _ = s.start_on(&b, 1, 30_000);
        assert_eq!(s.asked(), [Asked::Kick(1)]);
    });
}

/// W-17, I-10: hours pass at once with a thousand callouts due and a periodic one.
fn jump() {
    scene(1, |s| {
        let counts: Vec<_> = (0..1000)
            .map(|index| {
                let (node, count) = s.counting();
                let _ = s.start(&node, 1_000_000 + index * 7_000);
                count
            })
            .collect();
        let periods = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&periods);
        let periodic = s.node(move |expiry| {
            theirs.fetch_add(1 + (expiry.missed() << 32), SeqCst);
            Next::Every(Duration::from_millis(1))
        });
        let _ = s.start(&periodic, 1_000_000);
        s.set_time(3 * 3600 * 1_000_000_000);
        s.wheels.interrupt(0, HARD, true);
        let touched = s.wheels.stats(0).most_touched;
        assert!(touched <= 128, "more than one part at once: {touched}");
        assert!(s.w(0).shelf.armed() > 0);
        let mut turns = 0;
        while s.wheels.turn(0, BH) {
            s.chores(0);
            turns += 1;
            assert!(turns < 10_000, "no end");
        }
        assert!(turns >= 1000 / 16, "more than one part at once: {turns} turns");
        assert!(counts.iter().all(|count| count.load(SeqCst) == 1));
        assert_eq!(periods.load(SeqCst), 1, "one run for all periods; the rest is missed");
        let stats = s.wheels.stats(0);
        assert_eq!(stats.missed, 3 * 3600 * 1000 - 1);
        assert_eq!(stats.jumps, 1);
        assert!(stats.longest_jump > 3_000_000_000_000);
    });
}

/// I-10.
fn bounded() {
    scene(1, |s| {
        for _ in 0..2000 {
            let (node, _) = s.counting();
            let _ = s.start(&node, 5_000);
        }
        let mut steps = 0;
        loop {
            let before = s.w(0).shelf.armed();
            let more = s.w(0).take_due(1 << 30);
            while let Some(flight) = s.take(0) {
                s.finish(flight);
            }
            let fired = before - s.w(0).shelf.armed();
            assert!(fired <= 64, "more than one part at once: {fired}");
            steps += 1;
            if !more {
                break;
            }
        }
        assert!(steps >= 2000 / 64);
    });
}

/// W-22: each look at the clock finds the next deadline past already.
fn storm() {
    scene(1, |s| {
        let runs = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&runs);
        let node = s.direct(move |_| {
            assert!(theirs.fetch_add(1, SeqCst) < 1000, "the interrupt does not end");
            Next::Every(Duration::from_nanos(1500))
        });
        let _ = s.start(&node, 5_000);
        s.time_flies(3_000);
        let mut rests = Vec::new();
        for _ in 0..8 {
            let _ = s.asked();
            s.set_time(s.now() + LONGEST_REST);
            s.wheels.interrupt(0, HARD, true);
            let now = s.now();
            rests.push(alarm(s).unwrap().saturating_sub(now));
        }
        assert_eq!(s.wheels.stats(0).hangs, 8);
        assert!(rests.is_sorted() && rests[7] > LONGEST_REST - 20_000 && rests[7] <= LONGEST_REST, "{rests:?}");
        // When it is quiet again, it is as before.
        s.time_flies(0);
        let _ = s.wheels.stop(&node, false);
        s.wheels.interrupt(0, HARD, true);
        let _ = s.asked();
        let _ = s.start(&node, s.now() + 1_000);
        assert!(alarm(s).is_some_and(|at| at <= s.now() + 2_048));
    });
}

/// I-9: whatever is started, stopped and served, the alarm is not later than the earliest deadline.
fn never_late() {
    scene(1, |s| {
        let nodes: Vec<_> = (0..40).map(|_| s.counting().0).collect();
        let mut at = [None; 40];
        let set = OnceLock::new();
        let mut random = 88_172_645_463_325_252u64;
        let mut latest = None;
        for _ in 0..20_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let index = (random >> 8) as usize % 40;
            match random % 4 {
                0 => _ = s.wheels.stop(&nodes[index], false),
                1 => {
                    s.set_time(s.now() + (random >> 20) % 200_000);
                    // Only an alarm that went off makes it look.
                    if latest.is_some_and(|latest| latest <= s.now()) {
                        s.wheels.interrupt(0, HARD, true);
                        latest = None;
                        while s.wheels.turn(0, BH) {}
                    }
                }
                _ => _ = s.start(&nodes[index], s.now() + (random >> 16) % (1 << (random >> 58))),
            }
            if let Some(alarm) = alarm(s) {
                latest = Some(alarm);
                set.get_or_init(|| ());
            }
            for (index, node) in nodes.iter().enumerate() {
                at[index] = s.status(node).0;
            }
            let first = at.iter().flatten().min();
            if let Some(&first) = first {
                assert!(latest.is_some_and(|latest| latest <= first.max(s.now()) + 1024), "the alarm comes too late");
            }
        }
        assert!(set.get().is_some());
    });
}
