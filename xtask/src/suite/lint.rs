//! What a reader would object to, found by programs: format, clippy, broken documentation, new
//! unsafe code, files grown too long, unfinished work.

use std::process::Command;

use anyhow::{Result, bail, ensure};

use super::source::{self, Source};
use super::tally::Tally;
use super::unsafe_count;
use crate::audit::deferred;
use crate::cli::LintOptions;
use crate::host::{install, program, workspace};

/// The one crate that may contain unsafe code.
const UNSAFE_CORE: &str = "hal";
/// Crates that may have some in small modules, which say why: each opts in against a denial.
const NAMED_MODULES: [&str; 2] = ["timer", "vmm"];
/// Lines of a file that are too many.
const TOO_LONG: usize = 500;

/// `cargo xtask lint`.
pub fn command(options: &LintOptions) -> Result<bool> {
    if options.lower {
        unsafe_count::lower()?;
    }
    let mut tally = Tally::default();
    group(&mut tally)?;
    tally.conclude();
    Ok(tally.is_good())
}

pub fn group(tally: &mut Tally) -> Result<()> {
    install::rust_component("rustfmt", "rustfmt")?;
    install::rust_component("cargo-clippy", "clippy")?;
    install::rust_target()?;
    let hosted = ["--workspace", "--exclude", "undercroft-kernel"];
    let bare = ["--package", "undercroft-kernel", "--target", install::TARGET];
    let deny = ["--", "-D", "warnings"];
    tally.check("format", cargo(&["fmt", "--all", "--check"], &[], &[]));
    tally.check("clippy on the host", cargo(&["clippy", "--quiet", "--all-targets"], &hosted, &deny));
    tally.check("clippy on bare metal", cargo(&["clippy", "--quiet"], &bare, &deny));
    tally.check("documentation", cargo(&["doc", "--quiet", "--no-deps"], &hosted, &[]));
    let counts = unsafe_count::count()?;
    let total: u64 = counts.values().sum();
    println!(
        "unsafe: {total} in all; {}",
        counts.iter().map(|(f, n)| format!("{f} {n}")).collect::<Vec<_>>().join(", ")
    );
    tally.check("the count of unsafe may only fall", unsafe_count::compare(&counts, &unsafe_count::allowed()?));
    let mut sources = Vec::new();
    for folder in workspace::folders()? {
        let of_crate = source::of(workspace::root(), &folder)?;
        if NAMED_MODULES.contains(&folder.as_str()) {
            tally.check(&format!("{folder} has unsafe code in named modules only"), names_unsafe(&of_crate));
        } else if folder != UNSAFE_CORE {
            tally.check(&format!("{folder} forbids unsafe code"), forbids_unsafe(&of_crate));
        }
        sources.extend(of_crate);
    }
    tally.check(&format!("no file is longer than {TOO_LONG} lines"), all(&sources, short_enough));
    tally.check("every source of deferred work is listed with its context", deferred::check());
    tally.check("no work is left unfinished", all(&sources, finished));
    Ok(())
}

fn cargo(command: &[&str], packages: &[&str], rest: &[&str]) -> Result<()> {
    let mut cargo: Command = workspace::cargo();
    cargo.args(command).args(packages).args(rest).env("RUSTDOCFLAGS", "-D warnings");
    program::run(&mut cargo).map(drop)
}

fn forbids_unsafe(sources: &[Source]) -> Result<()> {
    roots_say(sources, &["forbid"])
}

fn names_unsafe(sources: &[Source]) -> Result<()> {
    // A root may be stricter than it must.
    roots_say(sources, &["deny", "forbid"])
}

/// Whether each root of a crate begins with one of those levels for unsafe code.
fn roots_say(sources: &[Source], levels: &[&str]) -> Result<()> {
    // Measurements are no part of a program.
    let is_root = |source: &&Source| {
        let measures = source.path.components().any(|part| part.as_os_str() == "benches");
        !measures && (source.path.ends_with("src/lib.rs") || source.path.ends_with("src/main.rs"))
    };
    let says =
        |source: &Source, level: &str| source.tokens.windows(4).any(|four| four == ["#", "!", level, "unsafe_code"]);
    let without = |source: &&Source| !levels.iter().any(|level| says(source, level));
    let wrong: Vec<_> = sources.iter().filter(is_root).filter(without).map(|s| s.path.display().to_string()).collect();
    ensure!(wrong.is_empty(), "without #![{}(unsafe_code)]: {}", levels[0], wrong.join(", "));
    Ok(())
}

fn all(sources: &[Source], check: fn(&Source) -> Result<()>) -> Result<()> {
    let wrong: Vec<String> = sources
        .iter()
        .filter_map(|source| check(source).err().map(|error| format!("{}: {error}", source.path.display())))
        .collect();
    if wrong.is_empty() { Ok(()) } else { bail!(wrong.join("\n")) }
}

fn short_enough(source: &Source) -> Result<()> {
    ensure!(source.lines <= TOO_LONG, "{} lines", source.lines);
    Ok(())
}

fn finished(source: &Source) -> Result<()> {
    for pair in source.tokens.windows(2) {
        let unfinished = matches!(pair[0].as_str(), "todo" | "unimplemented") && pair[1] == "!";
        ensure!(!unfinished, "{}!", pair[0]);
    }
    let ignored = source.tokens.windows(2).any(|pair| pair[0] == "#" && pair[1] == "ignore");
    ensure!(!ignored, "an ignored test");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { path: "x/src/lib.rs".into(), lines: text.lines().count(), tokens: source::tokens(text).unwrap() }
    }

    #[test]
    fn unfinished_work_is_found() {
        assert!(finished(&source("fn f() { todo(); let todo = 1; }")).is_ok());
        assert!(finished(&source("fn f() { todo!() }")).is_err());
        assert!(finished(&source("fn f() { g(|| unimplemented!(\"x\")) }")).is_err());
        assert!(finished(&source("#[test] #[ignore = \"slow\"] fn f() {}")).is_err());
    }

    #[test]
    fn a_crate_must_forbid_unsafe_code() {
        assert!(forbids_unsafe(&[source("#![no_std]\n#![forbid(unsafe_code)]\nfn f() {}")]).is_ok());
        assert!(forbids_unsafe(&[source("#![no_std]\nfn f() {}")]).is_err());
        assert!(forbids_unsafe(&[source("#![deny(unsafe_code)]")]).is_err());
        assert!(names_unsafe(&[source("#![deny(unsafe_code)]"), source("#![forbid(unsafe_code)]")]).is_ok());
        assert!(names_unsafe(&[source("fn f() {}")]).is_err());
    }

    #[test]
    fn long_files_are_found() {
        assert!(short_enough(&source(&"\n".repeat(TOO_LONG))).is_ok());
        assert!(short_enough(&source(&"\n".repeat(TOO_LONG + 1))).is_err());
    }
}
