//! `cargo xtask bench callouts`: a million timers, in the wheel and in what others would use.

use std::fs;

use anyhow::{Context, Result};

use super::chart;
use super::ratios::{Bound, Limit, Table};
use crate::cli::BenchCalloutsOptions;

const NEXUS: &str = "nexus-timer 1.5.0";
const DELAYS: &str = "tokio-util 0.7.20 DelayQueue";

const BOUNDS: [Bound; 4] = [
    Bound { case: "stop and start of any", name: NEXUS, least: 2.5, what: "2.5 times as fast" },
    Bound { case: "stop and start of any", name: DELAYS, least: 3.0, what: "3 times as fast" },
    Bound { case: "the wheel alone: stop and start of any", name: NEXUS, least: 2.5, what: "2.5 times as fast" },
    Bound { case: "the wheel alone: stop and start of any", name: DELAYS, least: 3.0, what: "3 times as fast" },
];

const LIMITS: [Limit; 6] = [
    Limit { case: "start, in cache", most: 15.0 },
    Limit { case: "the wheel alone: start, in cache", most: 15.0 },
    Limit { case: "next event", most: 15.0 },
    Limit { case: "the wheel alone: next event", most: 15.0 },
    // A node with a handler of one word takes 64, its handle 8; the slots are shared by all.
    Limit { case: "bytes per armed timer", most: 72.5 },
    Limit { case: "nodes touched by a step, at most", most: 64.0 },
];

const TABLE: Table = Table { package: "undercroft-timer-benches", words: &[], bounds: &BOUNDS, limits: &LIMITS };

/// What the chart shows, of all that is measured.
const SHOWN: [&str; 7] = [
    "start, in cache",
    "stop, in cache",
    "stop and start of any",
    "stop and start of any, 2 threads",
    "expire, 1 tick a call",
    "next event",
    "bytes per armed timer",
];

/// Makes the measurement, shows it, draws it, and says whether it is what is wanted.
pub fn command(options: &BenchCalloutsOptions) -> Result<bool> {
    let lines = TABLE.measure(&options.ratios)?;
    if let Some(path) = &options.svg {
        let of = |case: &&str| {
            let bars = lines.iter().filter(|line| line.case == **case);
            chart::Group {
                title: (*case).to_owned(),
                bars: bars.map(|line| (line.name.clone(), line.numbers[0])).collect(),
            }
        };
        let title = "A million timers outstanding: nanoseconds (and bytes), middle of all rounds, logarithmic";
        let drawn = chart::draw(title, &SHOWN.iter().map(of).collect::<Vec<_>>());
        fs::write(path, drawn).with_context(|| path.display().to_string())?;
    }
    Ok(TABLE.judge(&lines))
}
