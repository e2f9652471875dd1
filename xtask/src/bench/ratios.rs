//! The tables of ratios: hal's heap and bottom-half queue beside what others would use, and what they have to reach.

use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use crate::cli::BenchRatiosOptions;
use crate::host::workspace;

/// A line that the measurement prints.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    case: String,
    name: String,
    /// Nanoseconds per operation: middle and least.
    nanos: [f64; 2],
    /// To the first candidate of the case, round by round.
    ratio: f64,
}

/// What a candidate's time has to be, as a multiple of the first candidate's.
struct Bound {
    case: &'static str,
    name: &'static str,
    least: f64,
    what: &'static str,
}

const QUEUE: [Bound; 4] = [
    Bound { case: "push and pop in turn, 1 CPU", name: "crossbeam ArrayQueue", least: 1.0, what: "at most its time" },
    Bound {
        case: "push and pop in turn, 1 CPU",
        name: "crossbeam SegQueue",
        least: 2.0,
        what: "less than half its time",
    },
    Bound { case: "a producer on the other CPU", name: "crossbeam ArrayQueue", least: 1.0, what: "its throughput" },
    Bound { case: "a producer on the other CPU", name: "crossbeam SegQueue", least: 1.0, what: "its throughput" },
];

/// A pair of one size on one CPU.
const fn of_size(case: &'static str) -> Bound {
    Bound { case, name: "talc behind a spin mutex", least: 1.0, what: "at least as fast" }
}

const HEAP: [Bound; 11] = [
    of_size("pairs of 64, 1 CPU"),
    of_size("pairs of 128, 1 CPU"),
    of_size("pairs of 256, 1 CPU"),
    of_size("pairs of 512, 1 CPU"),
    of_size("pairs of 1024, 1 CPU"),
    of_size("pairs of 2048, 1 CPU"),
    of_size("pairs of 4096, 1 CPU"),
    Bound { case: "pairs, 1 CPU", name: "talc behind a spin mutex", least: 1.0, what: "at least as fast" },
    Bound { case: "churn, 1 CPU", name: "talc behind a spin mutex", least: 1.0, what: "at least as fast" },
    Bound { case: "pairs, 2 CPUs", name: "talc behind a spin mutex", least: 1.5, what: "1.5 times as fast" },
    Bound { case: "churn, 2 CPUs", name: "talc behind a spin mutex", least: 1.5, what: "1.5 times as fast" },
];

/// `cargo xtask bench bhqueue`.
pub fn bhqueue(options: &BenchRatiosOptions) -> Result<bool> {
    table("bhqueue", &QUEUE, options)
}

/// `cargo xtask bench heap`.
pub fn heap(options: &BenchRatiosOptions) -> Result<bool> {
    table("heap", &HEAP, options)
}

fn table(what: &str, bounds: &[Bound], options: &BenchRatiosOptions) -> Result<bool> {
    let mut command = workspace::cargo();
    command.args(["run", "--quiet", "--release", "--package", "undercroft-hal-benches", "--", what]);
    command.arg(options.rounds.to_string()).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().context("cannot run cargo")?;
    ensure!(output.status.success(), "the measurement failed");
    let lines = parse(&String::from_utf8_lossy(&output.stdout))?;
    if options.json {
        lines.iter().for_each(|line| println!("{}", json(line)));
    } else {
        show(&lines);
    }
    let mut good = true;
    for bound in bounds {
        let line = lines.iter().find(|line| line.case == bound.case && line.name == bound.name);
        let line = line.with_context(|| format!("{} was not measured against {}", bound.case, bound.name))?;
        let held = line.ratio >= bound.least;
        good &= held;
        let verdict = if held { "ok    " } else { "MISSED" };
        eprintln!(
            "{verdict}  {}: {} takes {:.2} of our time; wanted: {}",
            bound.case, bound.name, line.ratio, bound.what
        );
    }
    Ok(good)
}

fn show(lines: &[Line]) {
    println!("{:<44}{:>10}{:>10}{:>9}", "nanoseconds per operation", "middle", "least", "ratio");
    let mut case = "";
    for line in lines {
        if line.case != case {
            case = &line.case;
            println!("{case}");
        }
        println!("  {:<42}{:>10.1}{:>10.1}{:>9.2}", line.name, line.nanos[0], line.nanos[1], line.ratio);
    }
}

fn json(line: &Line) -> String {
    let fields = serde_json::json!({
        "case": line.case, "name": line.name, "nanoseconds": line.nanos[0], "least": line.nanos[1], "ratio": line.ratio,
    });
    fields.to_string()
}

fn parse(text: &str) -> Result<Vec<Line>> {
    let line = |line: &str| {
        let mut fields = line.split('\t');
        let (case, name) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        let mut number = || fields.next()?.parse().ok();
        Some(Line { case, name, nanos: [number()?, number()?], ratio: number()? })
    };
    let Some(lines) = text.lines().map(line).collect() else { bail!("not a table of ratios:\n{text}") };
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_and_anything_else_refused() {
        let lines = parse("a case\tours\t10.5\t9\t1.000\na case\ttheirs\t21\t20\t2.0\n").unwrap();
        assert_eq!((lines.len(), lines[1].ratio, lines[0].nanos), (2, 2.0, [10.5, 9.0]));
        assert!(parse("a case\tours\t10.5\n").is_err() && parse("hello\n").is_err());
    }
}
