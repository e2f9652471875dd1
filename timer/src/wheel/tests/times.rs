//! Times that go back, that are past, that are between ticks: W-01, W-02, W-04, W-13, W-18.

use super::{Defect, Pair, Random, SHIFTS, clocks, with};

/// Deadlines before the clock, and a clock that is told to go back.
fn past_deadlines() {
    for shift in SHIFTS {
        for clock in clocks().filter(|&clock| clock > 1 << 12) {
            let mut pair = Pair::new(clock, shift);
            pair.insert(0, clock.saturating_add(1 << 20));
            for (number, deadline) in [0, 1, clock / 2, clock - 1, clock].into_iter().enumerate() {
                pair.insert(number + 1, deadline);
                assert!(
                    pair.wheel.next_event() >= Some(pair.wheel.clock()),
                    "the next event is a time before the clock"
                );
            }
            for now in [0, clock / 2, clock - 1, clock] {
                pair.catch_up(now);
            }
            pair.pop_all();
            pair.run_out();
        }
    }
}

#[test]
fn w_01_a_deadline_before_the_clock_does_not_turn_it_back() {
    past_deadlines();
}

#[test]
#[should_panic(expected = "the clock went back")]
fn w_01_control_the_clock_follows() {
    with(Defect::ClockFollows, past_deadlines);
}

/// Each event is a time at which there is something to do.
fn events() {
    let mut random = Random(2);
    for clock in clocks() {
        let mut pair = Pair::new(clock, 10);
        (0..9).for_each(|number| pair.insert(number, clock.saturating_add(random.any_size())));
        pair.run_out();
    }
}

#[test]
fn w_02_the_next_event_is_the_tick_at_which_something_is_due() {
    events();
}

#[test]
#[should_panic(expected = "an event at which there was nothing to do")]
fn w_02_control_the_event_is_the_time_that_was_asked_for() {
    with(Defect::EventAsAsked, events);
}

/// A wheel that nobody stepped for years.
fn stale_clock() {
    for years in [0, 1, 100] {
        let now = years * 365 * 24 * 3_600_000_000_000 + 12_345;
        let mut pair = Pair::new(1, 10);
        pair.insert(0, now + 1_000_000);
        pair.insert(1, now + 3_000_000_000);
        pair.run_out();
    }
}

#[test]
fn w_04_a_wheel_that_was_not_stepped_for_years_is_exact() {
    stale_clock();
}

#[test]
#[should_panic(expected = "late or lost")]
fn w_04_control_the_event_is_where_the_slot_ends() {
    with(Defect::EventOfSlot, stale_clock);
}

/// Delays around half and all of what 32 bits hold, from clocks around that and around half of 64 bits.
fn wide_delays() {
    for clock in [31, 32, 63].into_iter().flat_map(|bits| [(1_u64 << bits) - 1, 1 << bits, (1 << bits) + 1]) {
        let mut pair = Pair::new(clock, 0);
        for (number, delay) in
            [31, 32, 33, 62].into_iter().flat_map(|bits| [(1_u64 << bits) - 1, 1 << bits]).enumerate()
        {
            pair.insert(number, clock + delay);
        }
        pair.catch_up(clock + 1);
        pair.run_out();
    }
}

#[test]
fn w_13_ticks_do_not_wrap() {
    wide_delays();
}

#[test]
#[should_panic(expected = "early: ")]
fn w_13_control_signed_ticks() {
    with(Defect::SignedTicks, wide_delays);
}

/// Short delays from every phase of a tick, looked at from every phase of those that follow.
fn phases() {
    for phase in 0..1024 {
        let now = (1 << 30) + phase;
        let mut pair = Pair::new(now, 10);
        for number in 0..64 {
            pair.insert(number, now + number as u64 * 37);
        }
        for later in (0..4096).step_by(29) {
            pair.catch_up(now + later);
            pair.pop_all();
        }
        assert_eq!(pair.wheel.armed(), 0);
    }
}

#[test]
fn w_18_no_phase_of_a_tick_makes_a_deadline_early() {
    phases();
}

#[test]
#[should_panic(expected = "early: ")]
fn w_18_control_rounded_down() {
    with(Defect::RoundedDown, phases);
}
