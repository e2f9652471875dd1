//! Whether a test that the table names is in the source at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::reference::{COMPILE_FAIL, HARNESS_GROUPS, TestRef};
use crate::host::workspace;
use crate::suite::source;

/// The crates, by package name.
pub struct Existence(BTreeMap<String, Crate>);

struct Crate {
    folder: PathBuf,
    functions: BTreeSet<String>,
}

impl Existence {
    /// Looks through all crates.
    pub fn look() -> Result<Self> {
        let mut crates = BTreeMap::new();
        for member in workspace::members()? {
            let sources = source::of(workspace::root(), &member).context("cannot read the tests")?;
            let functions = sources.iter().flat_map(|source| functions_in(&source.tokens)).collect();
            let folder = workspace::root().join(&member);
            crates.insert(package_in(&folder.join("Cargo.toml"))?, Crate { folder, functions });
        }
        Ok(Self(crates))
    }

    /// Whether `test` exists. Checks of the other groups have no place to look for: whether they ran tells.
    pub fn of(&self, test: &TestRef) -> bool {
        if !HARNESS_GROUPS.contains(&test.group.as_str()) {
            return true;
        }
        let Some(of) = self.0.get(&test.package) else { return false };
        if test.group == COMPILE_FAIL {
            let path = of.folder.join("tests/compile-fail").join(&test.name);
            return path.with_extension("rs").is_file() && path.with_extension("stderr").is_file();
        }
        of.functions.contains(test.function())
    }
}

fn package_in(manifest: &Path) -> Result<String> {
    #[derive(Deserialize)]
    struct Manifest {
        package: Package,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
    }
    let read = || manifest.display().to_string();
    let text = fs::read_to_string(manifest).with_context(read)?;
    Ok(toml::from_str::<Manifest>(&text).with_context(read)?.package.name)
}

fn functions_in(tokens: &[String]) -> impl Iterator<Item = String> + '_ {
    tokens.windows(2).filter(|pair| pair[0] == "fn").map(|pair| pair[1].clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever renames a test learns here that the table names it.
    #[test]
    fn everything_that_the_table_names_exists() {
        let existence = Existence::look().unwrap();
        let table = crate::audit::table().unwrap();
        let named = table.entries().flat_map(|entry| entry.named());
        let absent: Vec<_> = named.filter(|test| !existence.of(test)).map(ToString::to_string).collect();
        assert!(absent.is_empty(), "audit/ names tests that are not there: {absent:?}");
    }

    #[test]
    fn this_test_exists_and_others_do_not() {
        let existence = Existence::look().unwrap();
        let exists = |text: &str| existence.of(&text.parse().unwrap());
        assert!(exists("unit undercroft-xtask audit::existence::tests::this_test_exists_and_others_do_not"));
        assert!(!exists("unit undercroft-hal audit::existence::tests::this_test_exists_and_others_do_not"));
        assert!(!exists("unit undercroft-xtask audit::existence::tests::no_such_test"));
        assert!(!exists("unit no-such-package x"));
        assert!(exists("compile-fail undercroft-hal send_a_token"));
        assert!(!exists("compile-fail undercroft-hal send_a_tokens"));
    }
}
