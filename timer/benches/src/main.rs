//! The wheel beside others: `undercroft-callouts [ROUNDS]`.
//!
//! One line for each candidate: case, name, the number (middle, least), ratio to the case's first candidate; tab-separated. The numbers
//! are nanoseconds unless the case says otherwise.

mod callouts;
mod delay_queue;
mod memory;
mod ours;
mod peers;
mod subject;
mod threads;

use std::process::ExitCode;

use callouts::Callouts;
use delay_queue::Delays;
use ours::Ours;
use peers::{Hierarchical, Map, Nexus, Tm};
use subject::{Loaded, OUTSTANDING, Rounds, Subject};
use undercroft_hal_benches::platform;
use undercroft_hal_benches::rounds::{Candidate, interleaved};

fn main() -> ExitCode {
    let rounds = std::env::args().nth(1).map_or(Ok(15), |word| word.parse());
    let Ok(rounds) = rounds else {
        eprintln!("usage: undercroft-callouts [ROUNDS]");
        return ExitCode::from(2);
    };
    platform::become_cpu(0);
    bytes();
    one_thread(rounds);
    two_threads(rounds.div_ceil(3));
    ExitCode::SUCCESS
}

fn show(case: &str, rounds: usize, mut candidates: Vec<Candidate<'_>>) {
    for (measured, ratio) in interleaved(rounds, &mut candidates) {
        line(case, measured.name, [measured.median(), measured.least()], ratio);
    }
}

fn line(case: &str, name: &str, [middle, least]: [f64; 2], ratio: f64) {
    println!("{case}\t{name}\t{middle:.2}\t{least:.2}\t{ratio:.3}");
}

/// All candidates, by what is to be done with each.
macro_rules! each {
    ($what:ident) => {
        vec![
            $what!(Callouts),
            $what!(Ours),
            $what!(Nexus),
            $what!(Tm),
            $what!(Hierarchical),
            $what!(Delays),
            $what!(Map),
        ]
    };
}

macro_rules! load {
    ($subject:ty) => {
        Box::new(Loaded::<$subject>::new(OUTSTANDING, 1234)) as Box<dyn Rounds>
    };
}

fn bytes() {
    macro_rules! measure {
        ($subject:ty) => {
            (<$subject>::NAME, memory::bytes::<$subject>())
        };
    }
    let all: Vec<(&str, f64)> = each!(measure);
    all.iter().for_each(|(name, bytes)| line("bytes per armed timer", name, [*bytes; 2], bytes / all[0].1));
}

fn one_thread(rounds: usize) {
    let mut all = each!(load);
    let mut case = |case: &str, round: &dyn Fn(&mut dyn Rounds) -> f64, but: &str| {
        let with = all.iter_mut().filter(|loaded| loaded.name() != but);
        show(case, rounds, with.map(|loaded| candidate(&mut **loaded, round)).collect());
    };
    case("start, in cache", &|loaded| loaded.starts(16), "");
    case("stop, in cache", &|loaded| loaded.stops(16), "");
    case("stop and start of any", &|loaded| loaded.pairs(2000), "");
    case("next event", &|loaded| loaded.questions(1000), "");
    let wheel_alone = Callouts::NAME;
    case("the wheel alone: start, in cache", &|loaded| loaded.starts(16), wheel_alone);
    case("the wheel alone: stop and start of any", &|loaded| loaded.pairs(2000), wheel_alone);
    case("the wheel alone: next event", &|loaded| loaded.questions(1000), wheel_alone);
    case("expire, 1000 ticks a call", &|loaded| loaded.expiries(4, 1000), "");
    // Its clock takes longer to turn than it takes to expire.
    case("expire, 1 tick a call", &|loaded| loaded.expiries(4000, 1), Delays::NAME);
    let mut first = None;
    for loaded in all.iter_mut().filter(|loaded| loaded.name() != Delays::NAME) {
        let nanos = loaded.longest(100_000);
        line("longest call for 1 tick, CPU time", loaded.name(), [nanos; 2], nanos / *first.get_or_insert(nanos));
    }
    for loaded in &all {
        loaded.facts().iter().for_each(|&(case, number)| line(case, loaded.name(), [number; 2], 1.0));
    }
}

fn candidate<'a>(loaded: &'a mut dyn Rounds, round: &'a dyn Fn(&mut dyn Rounds) -> f64) -> Candidate<'a> {
    (loaded.name(), Box::new(move || round(loaded)))
}

fn two_threads(rounds: usize) {
    macro_rules! pairs {
        ($subject:ty) => {
            (<$subject>::NAME, Box::new(|| threads::pairs::<$subject>(50_000)) as Box<dyn FnMut() -> f64>)
        };
    }
    show("stop and start of any, 2 threads", rounds, each!(pairs));
}
