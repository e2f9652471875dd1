//! `cargo xtask fuzz`: a target of `fuzz/` for some time, with libFuzzer and the address sanitizer.
//!
//! What cargo-fuzz does, without it: every crate is built with coverage. Inputs that reached something new are kept in
//! `target/fuzz/corpus/` and are where the next run begins; one that failed is left in `target/fuzz/failures/`.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::cli::FuzzOptions;
use crate::host::{install, workspace};

/// How libFuzzer wants everything built.
const FLAGS: &str = "--cfg fuzzing -Zsanitizer=address -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Bytes of an input at most.
const LONGEST: usize = 1024;

/// Whether nothing failed.
pub fn command(options: &FuzzOptions) -> Result<bool> {
    install::tools(&install::FUZZ)?;
    let source = workspace::root().join("fuzz/src").join(&options.target).with_extension("rs");
    ensure!(source.is_file(), "there is no {}", source.display());
    let target = workspace::target().join("fuzz");
    let folder = |name: &str| {
        let path = target.join(name).join(&options.target);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        anyhow::Ok(path)
    };
    let (corpus, failures) = (folder("corpus")?, folder("failures")?);
    let mut command = workspace::cargo();
    command.current_dir(workspace::root().join("fuzz"));
    // The compiler takes these flags in its nightly form only, unless it is told otherwise. With a target given, programs that only the build
    // needs are built without them.
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &target);
    command.args(["run", "--release", "--target", "x86_64-unknown-linux-gnu", "--bin", &options.target, "--"]);
    command.arg(format!("-max_total_time={}", options.seconds)).arg(format!("-max_len={LONGEST}"));
    command.arg(format!("-artifact_prefix={}/", failures.display())).arg("-print_final_stats=1").arg(&corpus);
    let status = command.status().context("cannot run cargo")?;
    Ok(status.success())
}
