//! `cargo xtask cov`: which lines of the crates that the project exists for are reached by the tests on the host, the models and the
//! simulation among them. What only tests have does not count.

mod lines;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cli::CovOptions;
use crate::host::{install, workspace};
use crate::report::text;
use crate::report::voice::Voice;
use lines::File;

/// The crates that are measured.
const CRATES: [&str; 8] = ["ata", "block", "pagecache", "pvscsi", "storvsc", "timer", "virtio", "xen"];

/// Crates whose tests reach them too.
const OTHERS: [&str; 3] = ["hosts", "fuzz-targets", "sim"];

/// `cargo xtask cov`: whether enough is covered and no test failed.
pub fn command(options: &CovOptions) -> Result<bool> {
    let voice = Voice { json: options.json };
    let tools = install::llvm_tools()?;
    let (profdata, cov) = (tools.join("llvm-profdata"), tools.join("llvm-cov"));
    // Some tests look at prepared disks with these programs.
    install::tools(install::FILE_SYSTEMS.iter().chain(&install::CHECKERS))?;
    let target = workspace::target().join("cov");
    let (profiles, merged, html) = (target.join("profiles"), target.join("all.profdata"), target.join("html"));
    if profiles.exists() {
        fs::remove_dir_all(&profiles).with_context(|| profiles.display().to_string())?;
    }
    let (programs, good) = run(&target, &profiles)?;
    merge(&profdata, &profiles, &merged)?;
    let files = lines::measure(workspace::root(), &exported(&cov, &merged, &programs)?, &CRATES)?;
    ensure!(!files.is_empty(), "no line was measured");
    let status = seen(&cov, "show", &merged, &programs)
        .args(["--format=html", "--show-line-counts-or-regions"])
        .arg(format!("--output-dir={}", html.display()))
        .args(CRATES.map(|name| workspace::root().join(name).join("src")))
        .status();
    ensure!(status.context("cannot run llvm-cov")?.success(), "llvm-cov cannot write its pages");
    if options.files {
        say_files(voice, files.iter().collect());
    }
    let share = say_crates(voice, &files);
    voice.say(&format!("every line: {}/index.html", html.display()));
    let enough = share >= f64::from(options.at_least);
    voice.say(&format!("at least {} %: {}", options.at_least, if enough { "reached" } else { "NOT reached" }));
    if !good {
        voice.say("FAILED: tests failed; cargo xtask test unit shows them");
    }
    Ok(enough && good)
}

/// Builds and runs the tests: the programs, and whether all passed.
fn run(target: &Path, profiles: &Path) -> Result<(Vec<PathBuf>, bool)> {
    let members = workspace::members()?;
    let others = OTHERS.iter().filter(|name| members.iter().any(|member| member == *name));
    let packages: Vec<&&str> = CRATES.iter().chain(others).collect();
    let cargo = || {
        let mut command = workspace::cargo();
        command.args(["test", "--lib", "--tests"]).stdin(Stdio::null());
        packages.iter().for_each(|name| {
            command.args(["--package", &format!("undercroft-{name}")]);
        });
        // Flags of their own rebuild everything: the other builds keep theirs.
        command.env("RUSTFLAGS", "-Cinstrument-coverage").env("CARGO_TARGET_DIR", target);
        // One file for each program, whichever threads and runs it has.
        command.env("LLVM_PROFILE_FILE", profiles.join("%m-%p.profraw"));
        command
    };
    let built =
        cargo().args(["--no-run", "--message-format=json-render-diagnostics"]).stderr(Stdio::inherit()).output();
    let built = built.context("cannot run cargo")?;
    ensure!(built.status.success(), "the tests do not build");
    let messages = String::from_utf8_lossy(&built.stdout);
    let programs = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs = programs.filter_map(|message| Some(PathBuf::from(message["executable"].as_str()?))).collect();
    // What must not compile covers nothing.
    let mut tests = cargo();
    tests.args(["--no-fail-fast", "--", "--skip", crate::audit::reference::MISUSE]).stdout(Stdio::null());
    Ok((programs, tests.status().context("cannot run cargo")?.success()))
}

fn merge(profdata: &Path, profiles: &Path, merged: &Path) -> Result<()> {
    let status = Command::new(profdata).args(["merge", "--sparse"]).arg(profiles).arg("--output").arg(merged).status();
    ensure!(status.context("cannot run llvm-profdata")?.success(), "llvm-profdata cannot read what the tests left");
    Ok(())
}

/// `llvm-cov` on what the programs left.
fn seen(cov: &Path, verb: &str, merged: &Path, programs: &[PathBuf]) -> Command {
    let mut command = Command::new(cov);
    command.arg(verb).arg(format!("--instr-profile={}", merged.display()));
    programs.iter().for_each(|program| {
        command.arg("--object").arg(program);
    });
    command
}

fn exported(cov: &Path, merged: &Path, programs: &[PathBuf]) -> Result<String> {
    let output = seen(cov, "export", merged, programs).arg("--format=lcov").output().context("cannot run llvm-cov")?;
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "llvm-cov cannot say what was reached: {why}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn percent(covered: usize, lines: usize) -> f64 {
    100.0 * covered as f64 / lines.max(1) as f64
}

fn row(name: &str, covered: usize, lines: usize) -> [String; 4] {
    [name.into(), covered.to_string(), lines.to_string(), format!("{:.1} %", percent(covered, lines))]
}

fn say_files(voice: Voice, mut files: Vec<&File>) {
    files.sort_by(|a, b| percent(a.covered, a.lines).total_cmp(&percent(b.covered, b.lines)));
    let rows: Vec<_> = files.iter().map(|file| row(&file.path, file.covered, file.lines)).collect();
    text::table(&rows, 1).iter().for_each(|line| voice.say(line));
}

/// A line for each crate and one for all; the share of all in per cent.
fn say_crates(voice: Voice, files: &[File]) -> f64 {
    let mut rows = vec![["crate", "covered", "lines", ""].map(String::from)];
    let (mut covered, mut lines) = (0, 0);
    for name in CRATES {
        let of_crate = || files.iter().filter(|file| file.path.starts_with(&format!("{name}/")));
        let counts = (of_crate().map(|file| file.covered).sum::<usize>(), of_crate().map(|file| file.lines).sum());
        voice.event(&json!({ "crate": name, "covered": counts.0, "lines": counts.1 }));
        rows.push(row(name, counts.0, counts.1));
        (covered, lines) = (covered + counts.0, lines + counts.1);
    }
    voice.event(&json!({ "crate": "all", "covered": covered, "lines": lines }));
    rows.push(row("all", covered, lines));
    text::table(&rows, 1).iter().for_each(|line| voice.say(line));
    percent(covered, lines)
}
