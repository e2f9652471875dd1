//! Commands about callouts: what they saw, and the race programme. Task context.

use core::fmt;

use undercroft_hal::clock::Duration;
use undercroft_hal::{Instant, cpu};
use undercroft_timer::timers::{self, LATE_BUCKETS, SLOW, Stats};

use super::{Bad, Session, Words};
use crate::race;

/// The longest run of the race programme: a day.
const LONGEST: u64 = 86_400;
/// How often it says how far it is.
const EVERY: Duration = Duration::from_secs(10);

pub(super) fn callouts<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    words.end()?;
    for cpu in 0..cpu::count() {
        let stats = timers::stats(cpu);
        session.say(format_args!("CPU {cpu}: {}", Seen(&stats)));
        session.say(format_args!("  late, up to us: {}", Late(&stats.late)));
        let Stats { slow, longest_handler, cascades, most_touched, jumps, hangs, .. } = stats;
        session.say(format_args!(
            "  {slow} handlers longer than {} us, the longest {longest_handler} ns; {cascades} nodes moved down, at most \
             {most_touched} touched in a step; {jumps} jumps of the clock, {hangs} alarms put off",
            SLOW / 1000
        ));
        match timers::next_event(cpu) {
            Some(at) => session.say(format_args!("  the next is due in {} us", at.since(Instant::now()).as_micros())),
            None => session.say(format_args!("  none is due: the alarm is off")),
        }
    }
    Ok(())
}

struct Seen<'a>(&'a Stats);

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { armed, started, fired, cancelled, in_flight, drains, missed, contended, .. } = self.0;
        write!(f, "{armed} armed, {started} started, {fired} run, {cancelled} cancelled, {in_flight} in flight, ")?;
        write!(f, "{drains} waits for a run, {missed} periods left out, {contended} locks found held")
    }
}

/// A histogram, without what is empty.
struct Late<'a>(&'a [u64; LATE_BUCKETS]);

impl fmt::Display for Late<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (at, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            let comma = if core::mem::take(&mut first) { "" } else { ", " };
            write!(f, "{comma}{count} {}", 1_u64 << at)?;
        }
        if first { f.write_str("none ran") } else { Ok(()) }
    }
}

pub(super) fn stress<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    let seconds = words.number("how many seconds")?;
    let seed = words.number_or("the seed", session.options.seed)?;
    words.end()?;
    let (seconds, cpus) = (seconds.min(LONGEST), cpu::count());
    session.say(format_args!("callouts raced on {cpus} CPUs for {seconds} s, seed {seed}"));
    let (begun, mut told) = (Instant::now(), Instant::now());
    let counts = race::run(session.cx, Duration::from_secs(seconds), seed, |counts| {
        session.report.alive();
        if told.elapsed() >= EVERY {
            told = Instant::now();
            session.say(format_args!("  {} s: {counts}", begun.elapsed().as_nanos() / 1_000_000_000));
        }
    });
    session.say(format_args!("{counts}"));
    match counts.violations() {
        _ if counts.runs() == 0 => session.report.problem(&"the race programme: no handler ran", None),
        (0, _) => session.say(format_args!("the race programme found nothing")),
        (count, first) => session.report.problem(
            &format_args!("the race programme found {count} violations; the first: {}", first.unwrap_or("unnamed")),
            None,
        ),
    }
    Ok(())
}
