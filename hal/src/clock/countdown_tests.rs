//! A timer of 32 bits on a virtual clock.

use super::*;
use std::vec::Vec;

const SECOND: u64 = 1_000_000_000;
const RATES: [u64; 4] = [SECOND, 62_500_000, 24_000_000, 3_000_000_000];

/// A processor with nothing but a timer.
struct Virtual {
    now: u64,
    rate: u64,
    scale: Scale,
    times: Times,
    starts: u32,
}

impl Virtual {
    fn new(rate: u64, now: u64) -> Self {
        let scale = Scale::new();
        scale.set(rate);
        Self { now, rate, scale, times: Times::new(), starts: 0 }
    }

    /// How long a tick takes, rounded up.
    fn tick(&self) -> u64 {
        SECOND.div_ceil(self.rate)
    }

    /// Lets the timer run until it is stopped or `most` have fired: when each fired, and which.
    fn run(&mut self, most: usize) -> Vec<(u64, Expired)> {
        let start = core::cell::Cell::new(Some(count(&self.scale, self.times.earliest(), self.now)));
        let mut fired = Vec::new();
        while let Some(ticks) = start.take().filter(|&ticks| ticks > 0)
            && fired.len() < most
        {
            self.starts += 1;
            assert!(self.starts < 200_000, "the timer goes off again and again, and nothing is due");
            self.now =
                self.now.saturating_add((u128::from(ticks) * u128::from(SECOND)).div_ceil(self.rate.into()) as u64);
            let (now, times, scale) = (self.now, &self.times, &self.scale);
            let expired = times.expired(now, || start.set(Some(count(scale, times.earliest(), now))));
            if expired.alarm || expired.kick {
                fired.push((now, expired));
            }
        }
        fired
    }
}

/// Waits of every length, below the cap and far above it: never early, at most a few ticks late, and no more starts than it takes.
fn waits_of_every_length() {
    for rate in RATES {
        let cap = u64::from(u32::MAX) * SECOND / rate;
        for left in [0, 1, 999, SECOND, cap - 1, cap, cap + 1, 2 * cap, 60 * SECOND, 86_400 * SECOND] {
            for begin in [0, 12_345, 1 << 32, 1 << 55] {
                let mut machine = Virtual::new(rate, begin);
                machine.times.set_alarm(Some(begin + left));
                let fired = machine.run(1);
                let [(at, expired)] = fired[..] else { panic!("an alarm in {left} ns never came") };
                assert_eq!(expired, Expired { alarm: true, kick: false });
                assert!(at >= begin + left, "an alarm came early");
                let late = at - begin - left;
                assert!(late <= 4 * machine.tick(), "an alarm in {left} ns came {late} ns late");
                assert!(u64::from(machine.starts) <= left / cap + 6, "{} starts for {left} ns", machine.starts);
            }
        }
    }
}

#[test]
fn x32_a_long_wait_is_capped_and_comes_in_time() {
    waits_of_every_length();
}

#[test]
#[should_panic(expected = "ns late")]
fn x32_control_the_larger_of_time_and_cap() {
    broken::with(Hazard::LargerOfTimeAndCap, waits_of_every_length);
}

/// What cannot be counted is far away, not near.
fn far_times_stay_far() {
    for rate in RATES {
        let scale = Scale::new();
        scale.set(rate);
        let mut before = 0;
        for nanoseconds in (0..64).map(|bit| 1 << bit).chain([u64::MAX - 1, u64::MAX]) {
            let ticks = scale.ticks(nanoseconds);
            assert!(ticks >= before, "{nanoseconds} ns at {rate} Hz are fewer ticks than a shorter time");
            before = ticks;
            if nanoseconds < 1 << 50 {
                let back = scale.nanoseconds(ticks);
                assert!(back.abs_diff(nanoseconds) <= SECOND.div_ceil(rate) + nanoseconds / 1_000_000, "{back}");
            }
        }
        assert_eq!(count(&scale, NEVER - 1, 0), u32::MAX);
    }
}

#[test]
fn x32_a_far_deadline_does_not_wrap() {
    far_times_stay_far();
}

#[test]
#[should_panic(expected = "fewer ticks than a shorter time")]
fn x32_control_a_far_deadline_wraps() {
    broken::with(Hazard::FarTimeWraps, far_times_stay_far);
}

/// Pattern 38: two times on one timer, in either order: the first does not swallow the second, nor what was armed in between.
fn both_times_come() {
    for (alarm, kick) in [(5_000, 9_000), (9_000, 5_000), (7_000, 7_000), (SECOND, 60 * SECOND), (60 * SECOND, 1)] {
        let mut machine = Virtual::new(SECOND, 1_000);
        machine.times.set_alarm(Some(alarm + 1_000));
        machine.times.set_kick(kick + 1_000);
        let fired = machine.run(usize::MAX);
        let alarms = fired.iter().filter(|(at, expired)| expired.alarm && (0..10).contains(&(at - 1_000 - alarm)));
        let kicks = fired.iter().filter(|(at, expired)| expired.kick && (0..10).contains(&(at - 1_000 - kick)));
        assert_eq!((alarms.count(), kicks.count()), (1, 1), "of alarm and kick one was never armed");
        assert_eq!(machine.times.earliest(), NEVER);
    }
}

#[test]
fn p_38_the_timer_is_armed_for_what_is_left() {
    both_times_come();
}

#[test]
#[should_panic(expected = "one was never armed")]
fn p_38_control_not_armed_again() {
    broken::with(Hazard::NotArmedAgain, both_times_come);
}
