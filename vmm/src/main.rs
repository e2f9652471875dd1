#![forbid(unsafe_code)]
//! The Hyper-V machine as a program.

use std::process::ExitCode;

use clap::Parser;
use undercroft_vmm::{machine, options};

fn main() -> ExitCode {
    match machine::run(&options::Options::parse()) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("undercroft-vmm: {error:#}");
            ExitCode::from(1)
        }
    }
}
