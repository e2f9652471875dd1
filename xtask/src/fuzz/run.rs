//! Running targets: alone on the terminal, or as processes that share what they find.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::{build, chosen, corpus};
use crate::cli::FuzzRunOptions;

/// Bytes of an input at most.
const LONGEST: usize = 4096;
/// Seconds of memory-hungry patience: an input that takes longer fails.
const TIMEOUT: u32 = 20;
/// Seconds of a turn, where several targets have hours.
const TURN: u64 = 600;

/// What came of a target.
#[derive(Debug, Default, Clone, Copy)]
struct Ran {
    executions: u64,
    failed: bool,
}

/// Whether nothing failed.
pub fn command(options: &FuzzRunOptions) -> Result<bool> {
    let targets = chosen(&options.targets)?;
    let programs = build::programs(&targets)?;
    let each = match options.hours {
        Some(hours) => u64::from(hours) * 3600 / targets.len() as u64,
        None => u64::from(options.seconds),
    };
    let mut all = vec![Ran::default(); targets.len()];
    let mut left = each;
    while left > 0 {
        let turn = if targets.len() > 1 { left.min(TURN) } else { left };
        left -= turn;
        for ((target, program), all) in targets.iter().zip(&programs).zip(&mut all) {
            // What failed once is to be looked at first.
            if all.failed {
                continue;
            }
            let ran = one(target, program, turn, options.jobs)?;
            (all.executions, all.failed) = (all.executions + ran.executions, ran.failed);
            let inputs = corpus::count(&corpus::found(target));
            let how = if all.failed { "FAILED" } else { "clean" };
            println!("{target}: {how} after {} executions in all, {inputs} inputs found", all.executions);
        }
    }
    let executions: u64 = all.iter().map(|ran| ran.executions).sum();
    println!("{} targets, {executions} executions", targets.len());
    Ok(all.iter().all(|ran| !ran.failed))
}

fn one(target: &str, program: &Path, seconds: u64, jobs: u32) -> Result<Ran> {
    let folder = |name: &str| {
        let path = build::folder().join(name).join(target);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        anyhow::Ok(path)
    };
    let (found, failures, logs) = (folder("corpus")?, folder("failures")?, folder("logs")?);
    let children: Vec<(Child, PathBuf)> = (0..jobs)
        .map(|job| {
            let log = logs.join(format!("{job}.log"));
            let file = File::create(&log).with_context(|| log.display().to_string())?;
            let mut command = Command::new(program);
            command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={LONGEST}"));
            command.arg(format!("-timeout={TIMEOUT}")).arg(format!("-artifact_prefix={}/", failures.display()));
            // Inputs that another process finds are read again and again.
            command.args(["-print_final_stats=1", "-reload=1"]).arg(&found);
            let kept = corpus::kept(target);
            if kept.is_dir() {
                command.arg(kept);
            }
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn();
            Ok((child.with_context(|| format!("cannot run {}", program.display()))?, log))
        })
        .collect::<Result<_>>()?;
    let mut ran = Ran::default();
    for (mut child, log) in children {
        let status = child.wait().context("cannot wait for a target")?;
        let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
        ran.executions += executions(&text);
        if !status.success() {
            ran.failed = true;
            let lines: Vec<&str> = text.lines().filter(|line| says_why(line)).collect();
            println!("{target}: {}\n{}", log.display(), lines.join("\n"));
        }
    }
    Ok(ran)
}

/// What libFuzzer counted.
fn executions(log: &str) -> u64 {
    let count = log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

fn says_why(line: &str) -> bool {
    ["panicked at", "ERROR:", "SUMMARY:", "Test unit written to"].iter().any(|mark| line.contains(mark))
}

#[cfg(test)]
mod tests {
    #[test]
    fn executions_are_what_libfuzzer_counted() {
        let log = "#8 DONE cov: 3\nDone 8 runs in 1 second(s)\nstat::number_of_executed_units: 8123\nstat::x: 1";
        assert_eq!(super::executions(log), 8123);
        assert_eq!(super::executions("killed"), 0);
        assert!(super::says_why("thread '<unnamed>' panicked at x.rs:1:1:") && !super::says_why("#1 NEW cov: 3"));
    }
}
