//! The groups that are runs of `cargo test`.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::tally::{Counts, Tally};
use crate::host::{install, workspace};

/// All tests on the host.
pub fn unit(tally: &mut Tally) -> Result<()> {
    // Some tests look at prepared disks with these programs.
    install::tools(install::FILE_SYSTEMS.iter().chain(&install::CHECKERS))?;
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--exclude", "undercroft-kernel", "--no-fail-fast"]);
    test("cargo test", &mut command, tally)
}

/// The tests that exist only under loom, of each crate that depends on it.
pub fn loom(tally: &mut Tally) -> Result<()> {
    under("loom", tally)
}

/// The same for shuttle.
pub fn shuttle(tally: &mut Tally) -> Result<()> {
    under("shuttle", tally)
}

fn under(checker: &str, tally: &mut Tally) -> Result<()> {
    let crates = crates_with(checker)?;
    ensure!(!crates.is_empty(), "no crate depends on {checker}");
    for name in crates {
        let mut command = workspace::cargo();
        command.args(["test", "--release", "--package", &name, "--lib", "--tests", "--no-fail-fast", checker]);
        command.env("RUSTFLAGS", format!("--cfg {checker}"));
        // Flags of their own rebuild everything: the other builds keep theirs.
        command.env("CARGO_TARGET_DIR", workspace::target().join(checker));
        test(&format!("{checker}: {name}"), &mut command, tally)?;
    }
    Ok(())
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

/// Runs `cargo test` and counts; what it printed is shown if anything failed.
fn test(name: &str, command: &mut Command, tally: &mut Tally) -> Result<()> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let counts = judged(Counts::of(&text), output.status.success());
    if counts.failed > 0 {
        println!("{text}");
        // A test that is skipped has not passed.
        text.lines().filter(|line| line.ends_with("... ignored")).for_each(|line| println!("IGNORED {line}"));
    }
    tally.add(name, counts);
    Ok(())
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
    fn a_run_is_good_only_if_all_of_it_is() {
        let judge = |passed, failed, ignored, success| judged(Counts { passed, failed, ignored }, success).failed;
        assert_eq!(judge(5, 0, 0, true), 0);
        assert_eq!(judge(5, 2, 0, false), 2);
        assert_eq!(judge(5, 0, 0, false), 1, "did not compile, or crashed");
        assert_eq!(judge(0, 0, 0, true), 1, "tested nothing");
        assert_eq!(judge(5, 0, 1, true), 1, "skipped something");
    }
}
