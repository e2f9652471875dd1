//! `cargo xtask fuzz`: the targets of `fuzz/`, with libFuzzer and the address sanitizer. See `docs/fuzzing.md`.

mod build;
mod corpus;
mod cov;
pub mod guest;
mod run;

use std::fs;

use anyhow::{Context, Result, bail};

use crate::cli::{Fuzz, FuzzOptions};
use crate::host::workspace;

/// Whether nothing failed.
pub fn command(options: &FuzzOptions) -> Result<bool> {
    match &options.what {
        Fuzz::List => list(),
        Fuzz::Run(options) => run::command(options),
        Fuzz::Cov(options) => cov::command(&chosen(&options.targets)?),
        Fuzz::Guest(options) => guest::command(options),
        Fuzz::Corpus(options) => corpus::command(&chosen(&options.targets)?),
    }
}

/// All targets: the programs of `fuzz/Cargo.toml`.
fn targets() -> Result<Vec<String>> {
    let manifest = workspace::root().join("fuzz/Cargo.toml");
    let text = fs::read_to_string(&manifest).with_context(|| manifest.display().to_string())?;
    let (_, programs) = text.split_once("[[bin]]").context("fuzz/Cargo.toml has no programs")?;
    let names = programs.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    Ok(names.map(String::from).collect())
}

/// Those that were named, or all.
fn chosen(names: &[String]) -> Result<Vec<String>> {
    let all = targets()?;
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        bail!("there is no target '{unknown}'; there are {}", all.join(", "));
    }
    Ok(if names.is_empty() { all } else { names.to_vec() })
}

fn list() -> Result<bool> {
    let lib =
        fs::read_to_string(workspace::root().join("fuzz-targets/src/lib.rs")).context("fuzz-targets/src/lib.rs")?;
    let what = |name: &str| {
        let (_, rest) = lib.split_once(&format!("\"{name}\","))?;
        Some(rest.split_once('"')?.1.split_once('"')?.0.to_owned())
    };
    for name in targets()? {
        let kept = corpus::count(&corpus::kept(&name));
        println!("{name:18} {kept:4} inputs  {}", what(&name).unwrap_or_default());
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    #[test]
    fn targets_are_read_from_the_manifest() {
        let all = super::targets().unwrap();
        assert!(all.contains(&"wheel".into()) && !all.contains(&"undercroft-fuzz".into()), "{all:?}");
        assert!(super::chosen(&["nothing".into()]).is_err());
    }
}
