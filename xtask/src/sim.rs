//! `cargo xtask sim`, and the group of that name: the program of the crate `sim`, built with every check.

use std::process::Command;

use anyhow::{Context, Result};

use crate::cli::SimOptions;
use crate::host::workspace;
use crate::suite::tally::{Counts, Tally};

/// Seeds of every run of the tests.
const FIXED: [u32; 2] = [1, 2];

fn program(mutants: bool) -> Command {
    let mut command = workspace::cargo();
    if mutants {
        // The switches are in every crate: this build is kept apart.
        command.env("RUSTFLAGS", "--cfg put_back").env("CARGO_TARGET_DIR", workspace::target().join("put_back"));
    }
    command.args(["run", "--quiet", "--profile", "sim", "--package", "undercroft-sim", "--"]);
    command
}

/// Whether everything held, or enough of the bugs were found.
pub fn command(options: &SimOptions) -> Result<bool> {
    let mut command = program(options.mutants);
    if options.mutants {
        command.arg("--mutants");
    }
    let status = command.args(&options.others).status().context("cannot run cargo")?;
    Ok(status.success())
}

/// Some seeds of every scenario, and new ones for a quarter of a minute, whose first is printed.
pub fn group(tally: &mut Tally) -> Result<()> {
    let fixed = FIXED.iter().map(|seed| (format!("seed {seed}"), vec!["--seed".to_string(), seed.to_string()]));
    let fresh = ("fresh seeds".to_string(), vec!["--minutes".to_string(), "0.25".to_string()]);
    for (title, arguments) in fixed.chain([fresh]) {
        let output = program(false).args(&arguments).output().context("cannot run cargo")?;
        let good = output.status.success();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !good {
            println!("{text}{}", String::from_utf8_lossy(&output.stderr));
        } else if let Some(seed) = text.lines().find(|line| line.starts_with("seed ")) {
            println!("{seed}");
        }
        tally.add(&title, Counts { passed: good.into(), failed: (!good).into(), ignored: 0 });
    }
    Ok(())
}
