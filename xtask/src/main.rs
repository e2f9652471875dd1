//! The front door of Undercroft: `cargo xtask run|test|audit|bench|fuzz|sim|cov|build|lint`.
//!
//! Everything a user or a contributor does with the stack starts here. The commands exit with
//! status 0 only if everything they were asked to show held, with 1 if something did not, and
//! with 2 for a command line that cannot be understood.
#![forbid(unsafe_code)]

mod audit;
mod bench;
mod cli;
mod cov;
mod disk;
mod fuzz;
mod host;
mod hyperv;
mod image;
mod linux;
mod qemu;
mod report;
mod run;
mod sim;
mod suite;
mod xen;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(options) => run::command(&options),
        Command::Build(options) => image::build::command(&options),
        Command::Test(options) => suite::command(&options),
        Command::Lint(options) => suite::lint::command(&options),
        Command::Audit(options) => audit::command(&options),
        Command::Cov(options) => cov::command(&options),
        Command::Bench(options) => bench::command(&options),
        Command::Sim(options) => sim::command(&options),
        Command::Fuzz(options) => fuzz::command(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
