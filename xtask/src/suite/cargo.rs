//! The groups that are runs of `cargo test`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, pipe};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::outcomes::{self, Programs};
use super::tally::{Counts, Tally};
use crate::audit::reference::{COMPILE_FAIL, MISUSE, TestRef};
use crate::host::{install, workspace};

/// The group, and the configuration, of the tests under ThreadSanitizer.
const SANITIZER: &str = "sanitizer";

/// All tests on the host.
pub fn unit(tally: &mut Tally) -> Result<()> {
    let mut harnesses = host(&[])?;
    // A group of its own.
    harnesses.filter = ["--skip", MISUSE].map(String::from).into();
    harnesses.run(tally)?;
    // The image's own crate builds programs for bare metal only; its library is tested apart from them.
    let (title, group) = ("cargo test: the image's workloads".into(), "unit".into());
    let arguments = ["--package", "undercroft-kernel", "--lib"].map(String::from).into();
    Harnesses { title, group, arguments, filter: Vec::new(), checker: None }.run(tally)
}

/// The files that must not compile, of each crate that has any.
pub fn compile_fail(tally: &mut Tally) -> Result<()> {
    // The compiler's answers quote the standard library where its source is there: they are kept with the quotes.
    install::rust_source()?;
    // All crates as ever: with other features they would be built anew.
    let arguments =
        ["--workspace", "--exclude", "undercroft-kernel", "--test", "compile_fail"].map(String::from).into();
    let (title, group) = ("cargo test: misuse".into(), COMPILE_FAIL.into());
    Harnesses { title, group, arguments, filter: Vec::new(), checker: None }.run(tally)
}

/// The tests that exist only under loom, of each crate that depends on it.
pub fn loom(tally: &mut Tally) -> Result<()> {
    under("loom", tally)
}

/// The same for shuttle.
pub fn shuttle(tally: &mut Tally) -> Result<()> {
    under("shuttle", tally)
}

/// The tests with real threads, under ThreadSanitizer.
pub fn sanitizer(tally: &mut Tally) -> Result<()> {
    sanitized()?.run(tally)
}

fn sanitized() -> Result<Harnesses> {
    install::rust_source()?;
    // Built together: the standard library is instrumented once.
    let packages = ["--package", "undercroft-hal", "--package", "undercroft-timer", "--lib"];
    let title = format!("{SANITIZER}: hal and timer");
    Ok(Harnesses { title, arguments: packages.map(String::from).into(), ..checked(SANITIZER, "undercroft-hal") })
}

/// These tests of a group and no others.
pub fn only(group: &str, tests: &[&TestRef], tally: &mut Tally) -> Result<()> {
    if group == COMPILE_FAIL {
        // Files that must not compile are one test of the harness.
        return compile_fail(tally);
    }
    if group == SANITIZER {
        return Harnesses { filter: exactly(tests), ..sanitized()? }.run(tally);
    }
    if group == "unit" {
        // All crates are built together as ever: with other features they would be built anew.
        let mut harnesses = host(&["--lib", "--bins", "--tests"])?;
        harnesses.filter = exactly(tests);
        return harnesses.run(tally);
    }
    let crates: BTreeSet<&str> = tests.iter().map(|test| test.package.as_str()).collect();
    for package in crates {
        let of_crate: Vec<_> = tests.iter().copied().filter(|test| test.package == package).collect();
        let filter = exactly(&of_crate);
        Harnesses { filter, ..checked(group, package) }.run(tally)?;
    }
    Ok(())
}

fn exactly(tests: &[&TestRef]) -> Vec<String> {
    let names: BTreeSet<String> = tests.iter().map(|test| test.name.clone()).collect();
    std::iter::once("--exact".into()).chain(names).collect()
}

/// A run of `cargo test`.
struct Harnesses {
    title: String,
    group: String,
    arguments: Vec<String>,
    /// What goes to the harnesses.
    filter: Vec<String>,
    /// The configuration it is built for, if another than the usual.
    checker: Option<String>,
}

fn host(targets: &[&str]) -> Result<Harnesses> {
    // Some tests look at prepared disks with these programs.
    install::tools(install::FILE_SYSTEMS.iter().chain(&install::CHECKERS))?;
    let all = ["--workspace", "--exclude", "undercroft-kernel"];
    let arguments = all.iter().chain(targets).map(ToString::to_string).collect();
    let (title, group) = ("cargo test".into(), "unit".into());
    Ok(Harnesses { title, group, arguments, filter: Vec::new(), checker: None })
}

fn under(checker: &str, tally: &mut Tally) -> Result<()> {
    let crates = crates_with(checker)?;
    ensure!(!crates.is_empty(), "no crate depends on {checker}");
    crates.iter().try_for_each(|package| checked(checker, package).run(tally))
}

/// The tests of a crate that have the checker's name in theirs.
fn checked(checker: &str, package: &str) -> Harnesses {
    Harnesses {
        title: format!("{checker}: {package}"),
        group: checker.into(),
        arguments: ["--release", "--package", package, "--lib", "--tests"].map(String::from).into(),
        filter: Vec::from([if checker == SANITIZER { "stress" } else { checker }.into()]),
        checker: Some(checker.into()),
    }
}

impl Harnesses {
    fn cargo(&self) -> Command {
        let mut command = workspace::cargo();
        command.arg("test").args(&self.arguments);
        if let Some(checker) = &self.checker {
            let mut flags = format!("--cfg {checker}");
            if checker == SANITIZER {
                // The standard library has to be instrumented too, or its synchronisation looks like none. The compiler lets only its
                // nightly form do that, unless it is told otherwise.
                command.env("RUSTC_BOOTSTRAP", "1").args(["-Zbuild-std", "--target", "x86_64-unknown-linux-gnu"]);
                flags.push_str(" -Zsanitizer=thread");
            }
            command.env("RUSTFLAGS", flags);
            // Flags of their own rebuild everything: the other builds keep theirs.
            command.env("CARGO_TARGET_DIR", workspace::target().join(checker));
        }
        command.stdin(Stdio::null());
        command
    }

    /// Builds, runs, counts and takes down each outcome; what was printed is shown if anything failed.
    fn run(&self, tally: &mut Tally) -> Result<()> {
        let mut build = self.cargo();
        build.args(["--no-run", "--message-format=json-render-diagnostics"]).stderr(Stdio::inherit());
        let built = build.output().context("cannot run cargo")?;
        if !built.status.success() {
            tally.failed(&self.title, "it does not build");
            return Ok(());
        }
        let programs = Programs::from_messages(&String::from_utf8_lossy(&built.stdout));
        // Both streams in one: which program a line is of, the lines before it say.
        let (mut reader, writer) = pipe().context("cannot make a pipe")?;
        let mut command = self.cargo();
        command.args(["--no-fail-fast", "--"]).args(&self.filter);
        command.stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn().context("cannot run cargo")?;
        // The pipe ends when nobody holds its other end any more.
        drop(command);
        let mut output = Vec::new();
        reader.read_to_end(&mut output).context("cannot read what cargo prints")?;
        let success = child.wait().context("cannot wait for cargo")?.success();
        let text = String::from_utf8_lossy(&output);
        for (test, passed) in outcomes::outcomes(&self.group, &programs, &text) {
            tally.record(&test, passed);
        }
        let counts = judged(Counts::of(&text), success);
        if counts.failed > 0 {
            println!("{text}");
            // A test that is skipped has not passed.
            text.lines().filter(|line| line.ends_with("... ignored")).for_each(|line| println!("IGNORED {line}"));
        }
        tally.add(&self.title, counts);
        Ok(())
    }
}

fn crates_with(checker: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for folder in workspace::members()? {
        let manifest = workspace::root().join(&folder).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).with_context(|| manifest.display().to_string())?;
        let depends = |line: &str| line.split(['=', '.', ' ']).next() == Some(checker);
        if text.lines().any(depends) {
            names.push(format!("undercroft-{folder}"));
        }
    }
    Ok(names)
}

/// A run that does not succeed has failed somewhere, one that tests nothing has tested nothing,
/// and a test that is ignored has not passed.
fn judged(mut counts: Counts, success: bool) -> Counts {
    counts.failed += counts.ignored;
    if (!success || counts.passed == 0) && counts.failed == 0 {
        counts.failed = 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_runs() {
        let tests: Vec<TestRef> = ["unit p m::b", "unit p/t a", "unit q m::b"].map(|t| t.parse().unwrap()).into();
        let filter = exactly(&tests.iter().collect::<Vec<_>>());
        assert_eq!(filter, ["--exact", "a", "m::b"]);
    }

    #[test]
    fn a_run_is_good_only_if_all_of_it_is() {
        let judge = |passed, failed, ignored, success| judged(Counts { passed, failed, ignored }, success).failed;
        assert_eq!(judge(5, 0, 0, true), 0);
        assert_eq!(judge(5, 2, 0, false), 2);
        assert_eq!(judge(5, 0, 0, false), 1, "did not compile, or crashed");
        assert_eq!(judge(0, 0, 0, true), 1, "tested nothing");
        assert_eq!(judge(5, 0, 1, true), 1, "skipped something");
    }
}
