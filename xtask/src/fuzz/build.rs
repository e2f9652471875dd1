//! Building the targets: what cargo-fuzz does, without it.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::host::{install, workspace};

/// How libFuzzer wants everything built.
const FLAGS: &str = "--cfg fuzzing -Zsanitizer=address -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// The target is named so that programs that only the build needs are built without the flags.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Where everything is that belongs to fuzzing and is not checked in.
pub fn folder() -> PathBuf {
    workspace::target().join("fuzz")
}

/// Builds these targets; their programs.
pub fn programs(targets: &[String]) -> Result<Vec<PathBuf>> {
    install::tools(&install::FUZZ)?;
    let mut command = workspace::cargo();
    command.current_dir(workspace::root().join("fuzz"));
    // The compiler takes these flags in its nightly form only, unless it is told otherwise.
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", folder());
    command.args(["build", "--release", "--target", TRIPLE]);
    targets.iter().for_each(|target| _ = command.args(["--bin", target]));
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "the targets do not build");
    Ok(targets.iter().map(|target| folder().join(TRIPLE).join("release").join(target)).collect())
}
