//! A move of an idle or armed callout on ours, and an interrupt at every point of it: on the CPU that moves it, and on the one where it is to go.

use std::sync::{Arc, Mutex};

use undercroft_hal::{BottomHalf, cpu};
use undercroft_timer::{Callout, Expiry, Scope, StartError, Started, Stopped, timers};

use crate::crew::Crew;
use crate::lab::Lab;
use crate::ours::{END, LATER, SOON, at};

/// What strikes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Strike {
    Stop,
    /// For CPU 0.
    MoveBack,
    Close,
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    strike: Option<Result<Stopped, Started>>,
    start: Result<Started, StartError>,
    /// Where and when it ran.
    runs: Vec<(usize, u64)>,
}

/// A callout of CPU 0, armed for much later or not, is started on CPU 1.
fn moved(strike: Strike, after: usize, cpu: Option<usize>, armed: bool) -> Option<Outcome> {
    Lab::run(2, |lab, task| {
        timers::start_service(task);
        lab.settle();
        let runs = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&runs);
        let handler = move |_: &BottomHalf, expiry: &Expiry| {
            theirs.lock().unwrap().push((cpu::current(), expiry.deadline().as_nanos()));
        };
        let callout = Arc::new(Callout::<BottomHalf>::new(0, handler));
        let mut scope = Scope::new();
        scope.add(&callout);
        if armed {
            assert_eq!(callout.start_at(at(END)), Ok(Started::Armed));
        }
        let (scope, found) = (Mutex::new(Some(scope)), Arc::new(Mutex::new(None)));
        let (note, theirs) = (Arc::clone(&found), Arc::clone(&callout));
        let intruder = Lab::intruder(task, move || {
            *note.lock().unwrap() = match strike {
                Strike::Stop => Some(Ok(theirs.stop())),
                Strike::MoveBack => Some(Err(theirs.start_on(0, at(LATER + 1)).unwrap())),
                Strike::Close => {
                    drop(scope.lock().unwrap().take());
                    None
                }
            };
        });
        lab.strike(&intruder, after, cpu);
        let start = callout.start_on(1, at(LATER));
        let struck = !lab.call_off();
        for nanos in [LATER, LATER + SOON, END, 2 * END] {
            lab.pass_to(nanos);
        }
        assert_eq!([0, 1].map(|cpu| timers::stats(cpu).armed), [0, 0]);
        let (strike, runs) = (*found.lock().unwrap(), runs.lock().unwrap().clone());
        struck.then_some(Outcome { strike, start, runs })
    })
}

/// All points on both CPUs, of an armed and of an idle callout.
fn at_every_point(strike: Strike) -> Vec<(bool, Outcome)> {
    let mut all = Vec::new();
    for (cpu, armed) in [(None, false), (None, true), (Some(1), false), (Some(1), true)] {
        all.extend((0..).map_while(|after| moved(strike, after, cpu, armed)).map(|outcome| (armed, outcome)));
    }
    assert!(all.len() >= 8, "{} points", all.len());
    all
}

/// T-22 and T-11: whoever stops it in the middle of a move finds it, waits for nobody, and what he is told is what happens.
#[test]
fn t_11_t_22_stop_in_the_middle_of_a_move() {
    let (mut before, mut behind) = (0, 0);
    for (armed, Outcome { strike, start, runs }) in at_every_point(Strike::Stop) {
        assert!(start.is_ok());
        let stopped = strike.unwrap().unwrap();
        assert!(!stopped.is_in_flight());
        // It came before the move, or after it: cancelled what was there at that time, and the other stands.
        match runs[..] {
            [(1, LATER)] => {
                before += 1;
                assert_eq!(stopped.is_cancelled(), armed);
            }
            [] => {
                behind += 1;
                assert!(stopped.is_cancelled());
            }
            _ => panic!("{runs:?}"),
        }
    }
    assert!(before > 0 && behind > 0, "{before} before, {behind} behind");
}

/// The other way at the same time: it arrives at one of the two, once.
#[test]
fn t_24_moved_back_in_the_middle_of_a_move() {
    let mut arrived = [0, 0];
    for (_, Outcome { start, runs, .. }) in at_every_point(Strike::MoveBack) {
        assert!(start.is_ok());
        match runs[..] {
            [(0, at)] if at == LATER + 1 => arrived[0] += 1,
            [(1, LATER)] => arrived[1] += 1,
            _ => panic!("{runs:?}"),
        }
    }
    assert!(arrived.iter().all(|&times| times > 0), "{arrived:?}");
}

/// Closed in the middle of a move: nothing arrives.
#[test]
fn t_22_closed_in_the_middle_of_a_move() {
    let all = at_every_point(Strike::Close);
    assert!(all.iter().all(|(_, outcome)| outcome.runs.is_empty()), "{all:?}");
    assert!(all.iter().any(|(_, outcome)| outcome.start == Err(StartError::Closed)));
    assert!(all.iter().any(|(_, outcome)| outcome.start.is_ok()));
}

/// CPUs that send their callouts to each other, all at once: nobody holds one wheel while he waits for another.
#[test]
fn t_23_callouts_cross_each_other() {
    Crew::run(3, |crew, task| {
        timers::start_service(task);
        let callouts: Vec<_> =
            (0..6).map(|n| Callout::<BottomHalf>::new(n % 3, |_: &BottomHalf, _: &Expiry| ())).collect();
        let callouts = Arc::new(callouts);
        let sent: Vec<_> = (0..3)
            .map(|cpu| {
                let callouts = Arc::clone(&callouts);
                crew.ask(task, cpu, move |_| {
                    for round in 0..3000 {
                        let to = (cpu + round) % 3;
                        let _ = callouts[round % callouts.len()].start_on(to, at(END)).unwrap();
                    }
                })
            })
            .collect();
        sent.iter().for_each(|sent| crew.join(task, sent));
        let armed: u64 = (0..3).map(|cpu| timers::stats(cpu).armed).sum();
        assert_eq!(armed, 6, "each in one wheel");
        assert!(callouts.iter().all(|callout| callout.stop() == Stopped::Cancelled));
    });
}
