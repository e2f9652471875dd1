//! The bugs that are put back, each in a process of its own: some hang, some end the program.

use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use undercroft_sim::{Scenario, mutants, run, script};

/// How the process of a bug that was found ends.
const FOUND: u8 = 10;
/// How one does that never came to the bug.
const UNREACHED: u8 = 11;
/// Seconds that a script may take before its process is taken to hang.
const HANGS: u64 = 30;

/// Whether the crates were built with their switches.
const SWITCHED: bool = cfg!(put_back);

#[cfg(put_back)]
use undercroft_hal::put_back::{choose, reached};
#[cfg(not(put_back))]
fn choose(_: &str) {}
#[cfg(not(put_back))]
const fn reached() -> bool {
    false
}

/// Looks for one bug, in this process.
pub fn child(mutant: &str, scenarios: &[&Scenario], patience: u64) -> ExitCode {
    choose(mutant);
    let since = Instant::now();
    for seed in 0.. {
        for scenario in scenarios {
            let ran = run(scenario, &script(scenario, seed), false);
            if let Some(failure) = ran.failure {
                let short: String = failure.lines().skip(1).take(1).flat_map(|line| line.chars().take(150)).collect();
                println!("{} seed {seed}: {short}", scenario.name);
                return ExitCode::from(FOUND);
            }
            if since.elapsed() > Duration::from_secs(patience) {
                return if reached() { ExitCode::SUCCESS } else { ExitCode::from(UNREACHED) };
            }
        }
    }
    ExitCode::SUCCESS
}

/// What became of a bug.
enum Fate {
    Found(String),
    Missed,
    Unreached,
}

fn one(mutant: &str, patience: u64) -> std::io::Result<(Fate, Duration)> {
    let since = Instant::now();
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--mutant", mutant, "--patience", &patience.to_string()]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if since.elapsed() > Duration::from_secs(patience + HANGS) {
            child.kill()?;
            child.wait()?;
            return Ok((Fate::Found("it hangs".into()), since.elapsed()));
        }
        thread::sleep(Duration::from_millis(5));
    };
    let mut said = String::new();
    if let Some(mut output) = child.stdout.take() {
        std::io::Read::read_to_string(&mut output, &mut said)?;
    }
    let fate = match status.code() {
        Some(0) => Fate::Missed,
        Some(code) if code == i32::from(UNREACHED) => Fate::Unreached,
        Some(code) if code == i32::from(FOUND) => Fate::Found(said.trim().into()),
        _ => Fate::Found("a check ends the program".into()),
    };
    Ok((fate, since.elapsed()))
}

/// Looks for all of them.
pub fn all(patience: u64, json: bool) -> ExitCode {
    if !SWITCHED {
        eprintln!("built without the bugs: cargo xtask sim --mutants");
        return ExitCode::from(2);
    }
    let (mut found, mut reached, mut quick, mut all) = (0, 0, 0, 0);
    for mutant in mutants::all() {
        let (fate, took) = match one(&mutant, patience) {
            Ok(ended) => ended,
            Err(error) => {
                eprintln!("{mutant}: {error}");
                return ExitCode::FAILURE;
            }
        };
        all += 1;
        let (word, how) = match &fate {
            Fate::Found(how) => ("found", how.as_str()),
            Fate::Missed => ("missed", ""),
            Fate::Unreached => ("unreached", ""),
        };
        found += u32::from(word == "found");
        reached += u32::from(word != "unreached");
        quick += u32::from(word == "found" && took < Duration::from_secs(60));
        if json {
            println!("{}", json!({"mutant": mutant, "fate": word, "seconds": took.as_secs_f64(), "by": how}));
        } else {
            println!("{word:9} {:6.2} s  {mutant}  {how}", took.as_secs_f64());
        }
    }
    println!(
        "{found} of {all} bugs found, {quick} of them within a minute; {} are not on any scenario's way",
        all - reached
    );
    if found >= 60 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
