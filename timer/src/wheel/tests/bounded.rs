//! Many timers: no step touches more than 64 nodes, and all are exact.

use std::time::Duration;

use super::arena::Arena;
use super::{Defect, Random, with};
use crate::wheel::{TOUCHED, Wheel};

/// A wheel and very many timers, each of them checked when it is due.
struct Crowd {
    wheel: Wheel,
    arena: Arena,
    at: Vec<u64>,
    left: usize,
    most: usize,
}

impl Crowd {
    /// Timers that are due at these ticks.
    fn new(at: Vec<u64>) -> Self {
        let (mut wheel, arena) = (Wheel::new(0, 10), Arena::new(at.len()));
        for (number, &at) in at.iter().enumerate() {
            // SAFETY: the arena's nodes stay, and each is inserted once.
            unsafe { wheel.insert(arena.node(number), at << 10) };
        }
        Self { wheel, arena, left: at.len(), at, most: 0 }
    }

    /// A step at a tick. Whether there is more.
    fn step(&mut self, tick: u64) -> bool {
        let step = self.wheel.step(tick << 10);
        assert!(step.touched <= TOUCHED, "a step touched {} nodes", step.touched);
        self.most = self.most.max(step.touched);
        while let Some(node) = self.wheel.pop_due() {
            let at = self.at[self.arena.number(node)];
            assert_eq!(at, tick, "due at another tick than its own");
            self.left -= 1;
        }
        step.more
    }

    /// From event to event, and how many steps in a row it took at most to have nothing left that is due.
    fn run_out(mut self) -> usize {
        let mut longest = 0;
        while let Some(next) = self.wheel.next_event() {
            let mut steps = 1;
            while self.step(next >> 10) {
                steps += 1;
            }
            longest = longest.max(steps);
        }
        assert_eq!(self.left, 0, "lost");
        longest
    }
}

const MILLION: u64 = 1_000_000;

fn a_million() {
    let mut random = Random(1);
    let mut crowd = Crowd::new((0..MILLION).map(|_| 1 + random.below(MILLION)).collect());
    for tick in 1..=MILLION {
        assert!(!crowd.step(tick), "64 nodes are not enough");
    }
    assert_eq!(crowd.left, 0, "lost");
    // The same each time, on each machine.
    assert_eq!((crowd.most, crowd.wheel.cascaded()), (TOUCHED, A_MILLION_CASCADED));
}

/// How often nodes are moved, all in all.
const A_MILLION_CASCADED: u64 = 2_977_997;

#[test]
fn i_10_a_step_at_every_tick_touches_64_nodes_of_a_million_at_most() {
    a_million();
}

#[test]
#[should_panic(expected = "a step touched")]
fn i_10_control_unbounded() {
    with(Defect::Unbounded, a_million);
}

/// From idle: nothing happens but the events.
fn a_crowd_from_idle() {
    let ticks = |time: Duration| time.as_nanos() as u64 >> 10;
    let (far, wide) = (ticks(Duration::from_secs(10)), ticks(Duration::from_millis(100)));
    let mut random = Random(1);
    let crowd = Crowd::new((0..100_000).map(|_| far + random.below(wide)).collect());
    let steps = crowd.run_out();
    assert!(steps <= 3, "{steps} steps in a row before all was found that was due");
}

#[test]
fn i_10_a_crowd_is_taken_apart_before_it_is_due() {
    a_crowd_from_idle();
}

#[test]
#[should_panic(expected = "steps in a row")]
fn i_10_control_no_event_ahead() {
    with(Defect::NoEventAhead, a_crowd_from_idle);
}

/// All at one tick: they need as many steps as they need, at that tick.
#[test]
fn a_burst_is_due_at_its_tick() {
    for far in [1, 63, 64, 4_000, 10_000_000] {
        let steps = Crowd::new(vec![far; 100_000]).run_out();
        assert!(steps <= 100_000_usize.div_ceil(TOUCHED) + 1, "{steps} steps");
    }
}
