//! `cargo xtask sim`: seeds of scenarios until the time is over or one fails; and the bugs that are put back, until they are found.
#![forbid(unsafe_code)]

mod hunt;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, io};

use clap::Parser;
use serde_json::json;
use undercroft_sim::{SCENARIOS, Scenario, minimise, perfetto, run, scenario, script};

/// Runs the whole stack on simulated machines.
#[derive(Parser)]
#[command(name = "cargo xtask sim")]
struct Options {
    /// One seed only
    #[arg(long)]
    seed: Option<u64>,
    /// The first of the seeds that are drawn; from the clock without
    #[arg(long, conflicts_with = "seed")]
    from: Option<u64>,
    /// One scenario only
    #[arg(long)]
    scenario: Option<String>,
    /// How long, in minutes
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// A script that was kept, in place of a seed
    #[arg(long, requires = "scenario")]
    script: Option<PathBuf>,
    /// Lines of JSON
    #[arg(long)]
    json: bool,
    /// Name the scenarios
    #[arg(long)]
    list: bool,
    /// Put back each known bug, and find it
    #[arg(long)]
    mutants: bool,
    /// The bug that this process has
    #[arg(long, hide = true)]
    mutant: Option<String>,
    /// Seconds that each bug gets
    #[arg(long, default_value_t = 20)]
    patience: u64,
}

/// Where failures are left.
fn failures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/sim")
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        SCENARIOS.iter().for_each(|scenario| println!("{:14} {}", scenario.name, scenario.what));
        return ExitCode::SUCCESS;
    }
    let chosen: Vec<&Scenario> = match &options.scenario {
        None => SCENARIOS.iter().collect(),
        Some(name) => match scenario::find(name) {
            Some(scenario) => vec![scenario],
            None => {
                eprintln!("there is no scenario '{name}'; --list names them");
                return ExitCode::from(2);
            }
        },
    };
    if let Some(mutant) = &options.mutant {
        return hunt::child(mutant, &chosen, options.patience);
    }
    if options.mutants {
        return hunt::all(options.patience, options.json);
    }
    match search(&options, &chosen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What has been done so far.
#[derive(Default)]
struct Sum {
    seeds: u64,
    operations: u64,
    faults: u64,
    nanos: u64,
}

impl Sum {
    fn tell(&self, since: Instant, json: bool) {
        let seconds = since.elapsed().as_secs_f64().max(0.001);
        let hours = self.nanos as f64 / 3.6e12;
        let (seeds, rate) = (self.seeds as f64 / seconds, self.operations as f64 / seconds);
        let Self { operations, faults, .. } = self;
        if json {
            let line = json!({"simulated_hours": hours, "operations": operations, "faults": faults, "seeds": self.seeds, "seeds_per_second": seeds, "operations_per_second": rate});
            println!("{line}");
        } else {
            println!(
                "{hours:.2} h simulated, {operations} I/Os, {faults} faults, {seeds:.1} seeds/s, {rate:.0} I/Os/s"
            );
        }
    }
}

fn search(options: &Options, chosen: &[&Scenario]) -> io::Result<bool> {
    if let (Some(path), [scenario]) = (&options.script, chosen) {
        return fs::read(path).and_then(|bytes| report(scenario, None, &bytes, options.json));
    }
    let drawn = || std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_micros() as u64 & 0xffff_ffff);
    let mut seed = options.seed.or(options.from).unwrap_or_else(drawn);
    if !options.json {
        println!("seed {seed}");
    }
    let (since, limit) = (Instant::now(), Duration::from_secs_f64(options.minutes * 60.0));
    let (mut sum, mut told) = (Sum::default(), Instant::now());
    loop {
        for scenario in chosen {
            let bytes = script(scenario, seed);
            let ran = run(scenario, &bytes, false);
            sum.seeds += 1;
            sum.operations += ran.trace.operations;
            sum.faults += ran.trace.faults;
            sum.nanos += ran.trace.nanos;
            if ran.failure.is_some() {
                sum.tell(since, options.json);
                return report(scenario, Some(seed), &bytes, options.json);
            }
            if options.seed.is_some() && !options.json {
                println!("{:14} digest {:016x}, {} I/Os", scenario.name, ran.trace.digest, ran.trace.operations);
            }
            if told.elapsed() > Duration::from_secs(5) {
                sum.tell(since, options.json);
                told = Instant::now();
            }
            if since.elapsed() > limit && options.seed.is_none() {
                sum.tell(since, options.json);
                return Ok(true);
            }
        }
        if options.seed.is_some() {
            sum.tell(since, options.json);
            return Ok(true);
        }
        seed = seed.wrapping_add(1);
    }
}

/// Tells of a script: what failed, by which steps; and leaves it, with its picture, where it can be looked at.
fn report(scenario: &Scenario, seed: Option<u64>, bytes: &[u8], json: bool) -> io::Result<bool> {
    let (best, ran) = minimise::explained(scenario, bytes);
    let Some(failure) = ran.failure else {
        println!("{}: holds, digest {:016x}", scenario.name, ran.trace.digest);
        return Ok(true);
    };
    let folder = failures();
    fs::create_dir_all(&folder)?;
    let name = seed.map_or_else(|| "script".into(), |seed| seed.to_string());
    let path = |end: &str| -> PathBuf { Path::new(&folder).join(format!("{}-{name}.{end}", scenario.name)) };
    fs::write(path("bin"), &best)?;
    fs::write(path("json"), perfetto::json(&ran.trace))?;
    if json {
        let (kept, picture) = (path("bin"), path("json"));
        println!(
            "{}",
            json!({"failed": scenario.name, "seed": seed, "why": failure, "script": kept, "trace": picture})
        );
    } else {
        println!("FAILED {} seed {name}: {failure}", scenario.name);
        println!("of {} steps {} are needed; the last events:", bytes.len() / 6, best.len() / 6);
        perfetto::lines(&ran.trace, 40).iter().for_each(|line| println!("{line}"));
        println!("script: {}\npicture for ui.perfetto.dev: {}", path("bin").display(), path("json").display());
    }
    Ok(false)
}
