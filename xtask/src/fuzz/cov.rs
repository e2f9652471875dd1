//! Which lines the inputs that are kept reach: LLVM's source coverage, as HTML.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::corpus;
use crate::host::{install, workspace};

/// Not what the targets are about.
const OTHERS: &str = r"/(registry|rustc|rustlib|fuzz-targets|hosts)/|/hal/src/hosted/|/tests?\.rs|/tests/";

/// Replays the inputs of these targets and makes the report.
pub fn command(targets: &[String]) -> Result<bool> {
    let tools = install::llvm_tools()?;
    let folder = workspace::target().join("fuzz-cov");
    let mut build = workspace::cargo();
    build.env("RUSTFLAGS", "-Cinstrument-coverage").env("CARGO_TARGET_DIR", &folder);
    build.args(["build", "--package", "undercroft-fuzz-targets", "--bin", "replay"]);
    ensure!(build.status().context("cannot run cargo")?.success(), "the replay does not build");
    let program = folder.join("debug/replay");
    let mut profiles = Vec::new();
    for target in targets {
        let profile = folder.join(format!("{target}.profraw"));
        let mut replay = Command::new(&program);
        replay.env("LLVM_PROFILE_FILE", &profile).arg(target);
        for inputs in [corpus::kept(target), corpus::found(target)] {
            replay.arg(inputs);
        }
        ensure!(replay.status().context("cannot replay")?.success(), "{target}: an input fails");
        profiles.push(profile);
    }
    report(&tools, &folder, &program, &profiles)
}

fn report(tools: &Path, folder: &Path, program: &Path, profiles: &[PathBuf]) -> Result<bool> {
    let merged = folder.join("all.profdata");
    let merge = Command::new(tools.join("llvm-profdata"))
        .args(["merge", "--sparse", "-o"])
        .arg(&merged)
        .args(profiles)
        .status();
    ensure!(merge.context("cannot run llvm-profdata")?.success(), "the profiles cannot be merged");
    let cov = |what: &str| {
        let mut command = Command::new(tools.join("llvm-cov"));
        command.arg(what).arg(program).arg("--instr-profile").arg(&merged);
        command.arg(format!("--ignore-filename-regex={OTHERS}"));
        command
    };
    let pages = folder.join("html");
    let show = cov("show").args(["--format=html", "--show-directory-coverage", "--output-dir"]).arg(&pages).status();
    ensure!(show.context("cannot run llvm-cov")?.success(), "the report cannot be made");
    let total = cov("report").arg("--use-color=0").output().context("cannot run llvm-cov")?;
    let text = String::from_utf8_lossy(&total.stdout).into_owned();
    text.lines().filter(|line| line.starts_with("TOTAL")).for_each(|line| println!("{line}"));
    println!("{}", pages.join("index.html").display());
    Ok(true)
}
