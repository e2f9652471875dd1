//! The tables of ratios: the heap, the bottom-half queue and callouts beside what others would use, and what they have to reach.

use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use crate::cli::BenchRatiosOptions;
use crate::host::workspace;

/// A line that the measurement prints.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub case: String,
    pub name: String,
    /// Nanoseconds per operation, if the case says nothing else: middle and least.
    pub numbers: [f64; 2],
    /// To the first candidate of the case, round by round.
    pub ratio: f64,
}

/// What a candidate's time has to be, as a multiple of the first candidate's.
pub struct Bound {
    pub case: &'static str,
    pub name: &'static str,
    pub least: f64,
    pub what: &'static str,
}

/// What our own number must not exceed.
pub struct Limit {
    pub case: &'static str,
    pub most: f64,
}

/// A measurement: which program makes it, and what has to come out.
pub struct Table {
    pub package: &'static str,
    pub words: &'static [&'static str],
    pub bounds: &'static [Bound],
    pub limits: &'static [Limit],
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

const HAL: &str = "undercroft-hal-benches";

/// `cargo xtask bench bhqueue`.
pub fn bhqueue(options: &BenchRatiosOptions) -> Result<bool> {
    let table = Table { package: HAL, words: &["bhqueue"], bounds: &QUEUE, limits: &[] };
    Ok(table.judge(&table.measure(options)?))
}

/// `cargo xtask bench heap`.
pub fn heap(options: &BenchRatiosOptions) -> Result<bool> {
    let table = Table { package: HAL, words: &["heap"], bounds: &HEAP, limits: &[] };
    Ok(table.judge(&table.measure(options)?))
}

impl Table {
    /// Makes the measurement and shows it.
    pub fn measure(&self, options: &BenchRatiosOptions) -> Result<Vec<Line>> {
        let mut command = workspace::cargo();
        command.args(["run", "--quiet", "--release", "--package", self.package, "--"]).args(self.words);
        command.arg(options.rounds.to_string()).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().context("cannot run cargo")?;
        ensure!(output.status.success(), "the measurement failed");
        let lines = parse(&String::from_utf8_lossy(&output.stdout))?;
        let line = |what: &str, case: &str| format!("{what} was not measured: {case}");
        for bound in self.bounds {
            let known = lines.iter().any(|line| line.case == bound.case && line.name == bound.name);
            ensure!(known, line(bound.name, bound.case));
        }
        for limit in self.limits {
            ensure!(lines.iter().any(|line| line.case == limit.case), line("our own", limit.case));
        }
        if options.json {
            lines.iter().for_each(|line| println!("{}", json(line)));
        } else {
            show(&lines);
        }
        Ok(lines)
    }

    /// Whether everything that is wanted came out; each verdict is printed.
    pub fn judge(&self, lines: &[Line]) -> bool {
        let mut good = true;
        let mut say = |held: bool, what: String| {
            good &= held;
            eprintln!("{}  {what}", if held { "ok    " } else { "MISSED" });
        };
        for Bound { case, name, least, what } in self.bounds {
            let of = lines.iter().filter(|line| line.case == *case && line.name == *name);
            of.for_each(|line| {
                say(line.ratio >= *least, format!("{case}: {name} takes {:.3} times ours; wanted: {what}", line.ratio));
            });
        }
        for Limit { case, most } in self.limits {
            let ours = lines.iter().find(|line| line.case == *case);
            ours.into_iter().for_each(|line| {
                say(line.numbers[0] <= *most, format!("{case}: {:.1}; wanted: at most {most}", line.numbers[0]));
            });
        }
        good
    }
}

fn show(lines: &[Line]) {
    println!("{:<44}{:>10}{:>10}{:>9}", "nanoseconds, unless it says otherwise", "middle", "least", "ratio");
    let mut case = "";
    for line in lines {
        if line.case != case {
            case = &line.case;
            println!("{case}");
        }
        println!("  {:<42}{:>10.1}{:>10.1}{:>9.2}", line.name, line.numbers[0], line.numbers[1], line.ratio);
    }
}

fn json(line: &Line) -> String {
    let fields = serde_json::json!({
        "case": line.case, "name": line.name, "nanoseconds": line.numbers[0], "least": line.numbers[1], "ratio": line.ratio,
    });
    fields.to_string()
}

fn parse(text: &str) -> Result<Vec<Line>> {
    let line = |line: &str| {
        let mut fields = line.split('\t');
        let (case, name) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        let mut number = || fields.next()?.parse().ok();
        Some(Line { case, name, numbers: [number()?, number()?], ratio: number()? })
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
        assert_eq!((lines.len(), lines[1].ratio, lines[0].numbers), (2, 2.0, [10.5, 9.0]));
        assert!(parse("a case\tours\t10.5\n").is_err() && parse("hello\n").is_err());
    }
}
