//! Inputs: those that were found lie in `target/fuzz/corpus/<target>`, the fewest of them that reach as much are checked in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::build;
use crate::host::workspace;

/// The inputs of a target that are checked in.
pub fn kept(target: &str) -> PathBuf {
    workspace::root().join("fuzz/corpus").join(target)
}

/// The inputs of a target that were found here.
pub fn found(target: &str) -> PathBuf {
    build::folder().join("corpus").join(target)
}

/// How many inputs a folder holds.
pub fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, |files| files.count())
}

/// Minimises.
pub fn command(targets: &[String]) -> Result<bool> {
    let programs = build::programs(targets)?;
    for (target, program) in targets.iter().zip(programs) {
        minimise(target, &program).with_context(|| target.clone())?;
    }
    Ok(true)
}

fn minimise(target: &str, program: &Path) -> Result<()> {
    let (kept, found) = (kept(target), found(target));
    let fewest = workspace::scratch()?;
    for folder in [&kept, &found] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let before = count(&kept) + count(&found);
    let mut command = Command::new(program);
    // What is checked in comes first: what reaches no less stays as it is.
    command.args(["-merge=1", "-verbosity=0"]).arg(fewest.path()).arg(&kept).arg(&found);
    let status = command.stdin(Stdio::null()).stderr(Stdio::null()).status().context("cannot run the target")?;
    ensure!(status.success() && count(fewest.path()) > 0, "libFuzzer could not merge the inputs ({status})");
    fs::remove_dir_all(&kept)?;
    fs::create_dir_all(&kept)?;
    let (mut inputs, mut bytes) = (0, 0);
    for file in fs::read_dir(fewest.path())? {
        let path = file?.path();
        bytes += fs::copy(&path, kept.join(path.file_name().unwrap_or_default()))?;
        inputs += 1;
    }
    println!("{target}: of {before} inputs {inputs} are kept, {bytes} bytes");
    Ok(())
}
