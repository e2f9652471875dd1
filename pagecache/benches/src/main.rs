//! The page cache beside others: `undercroft-hits [ROUNDS [alone]]`. `alone` only reads what is there, with nobody beside, for a profiler.
//!
//! One line for each candidate: case, name, the number (middle, least), ratio to the case's first candidate; tab-separated. The numbers
//! are nanoseconds unless the case says otherwise.
//!
//! UNSAFETY: enters task context, as a platform does, on a thread that is in no context.

mod device;
mod hits;
mod memory;
mod random;
mod rates;
mod real;
mod traces;
mod volume;

use std::process::ExitCode;

use undercroft_hal::{Task, dispatch};
use undercroft_hal_benches::platform;
use undercroft_hal_benches::rounds::interleaved;
use undercroft_timer::timers;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let rounds = words.next().map_or(Ok(15), |word| word.parse());
    let (Ok(rounds), alone) = (rounds, words.next()) else { return usage() };
    if alone.as_ref().is_some_and(|word| word != "alone") {
        return usage();
    }
    platform::become_cpu(0);
    // SAFETY: this thread is a CPU that is in no context, and has its interrupts on.
    unsafe { dispatch::enter_task(|cx| measure(cx, rounds, alone.is_some())) };
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: undercroft-hits [ROUNDS [alone]]");
    ExitCode::from(2)
}

fn measure(cx: &Task, rounds: usize, alone: bool) {
    timers::start_service(cx);
    if !alone {
        let bytes = memory::bytes(cx);
        line("bytes per page, beyond the page", "undercroft Volume", [bytes; 2], 1.0);
    }
    let volume = hits::filled(cx);
    let mut candidates = vec![hits::ours(cx, &volume)];
    if !alone {
        candidates.extend(hits::others());
    }
    for (measured, ratio) in interleaved(rounds, &mut candidates) {
        line("4 KiB that are there, at random", measured.name, [measured.median(), measured.least()], ratio);
    }
    if alone {
        return;
    }
    let made_up = traces::all().into_iter().map(|(name, trace)| (name, trace, traces::CACHE));
    for (name, trace, cache) in made_up.chain(real::all()) {
        let all = rates::misses(cx, &trace, cache);
        let case = format!("misses of 1000: {name}");
        all.iter().for_each(|&(name, misses)| line(&case, name, [misses; 2], misses / all[0].1));
    }
}

fn line(case: &str, name: &str, [middle, least]: [f64; 2], ratio: f64) {
    println!("{case}\t{name}\t{middle:.2}\t{least:.2}\t{ratio:.3}");
}
