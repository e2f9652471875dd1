//! This program run again as `cargo xtask run`, for tests of the whole of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// What one run left behind.
pub struct Run {
    pub success: bool,
    pub events: Vec<Value>,
    /// What was said to people.
    pub text: String,
}

impl Run {
    pub fn events(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(move |event| event["event"] == name)
    }

    /// Holds if the run failed with exactly one message, and that names the thing.
    pub fn failed_naming(&self, thing: &str) -> Result<()> {
        ensure!(!self.success, "it did not fail:\n{}", self.text);
        let starts = ["error:", "FAILED:"];
        let messages: Vec<&str> = self.text.lines().filter(|line| starts.iter().any(|s| line.starts_with(s))).collect();
        match messages[..] {
            [one] if one.to_lowercase().contains(&thing.to_lowercase()) => Ok(()),
            [one] => bail!("its message does not speak of {thing}: {one}"),
            _ => bail!("there are {} messages:\n{}", messages.len(), self.text),
        }
    }
}

/// The program itself, as it was when it started.
pub fn program() -> Result<PathBuf> {
    let path = std::env::current_exe().context("cannot tell where this program is")?;
    // Linux marks a file that was replaced meanwhile; its successor is as good.
    let name = path.to_str().map(|name| name.trim_end_matches(" (deleted)").to_owned());
    Ok(name.map_or(path, PathBuf::from))
}

/// `cargo xtask run --json` with these arguments.
pub fn run(arguments: &[String]) -> Result<Run> {
    let mut command = Command::new(program()?);
    command.args(["run", "--json"]).args(arguments);
    finish(&mut command)
}

pub fn finish(command: &mut Command) -> Result<Run> {
    let output = command.stdin(Stdio::null()).output().context("cannot run this program again")?;
    let stdout = String::from_utf8(output.stdout).context("standard output is not UTF-8")?;
    let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("no JSON on standard output: {line}"));
    Ok(Run {
        success: output.status.success(),
        events: stdout.lines().map(parse).collect::<Result<_>>()?,
        text: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// An argument that is a path.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
