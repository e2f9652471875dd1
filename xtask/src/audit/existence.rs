//! Whether a test that the table names is in the source at all.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use super::reference::{COMPILE_FAIL, HARNESS_GROUPS, TestRef};
use crate::host::workspace;
use crate::suite::source;

/// The functions and the must-not-compile files of each crate.
pub struct Existence {
    functions: BTreeMap<String, BTreeSet<String>>,
}

impl Existence {
    /// Looks through all crates.
    pub fn look() -> Result<Self> {
        let mut functions = BTreeMap::new();
        for folder in workspace::members()? {
            let sources = source::of(workspace::root(), &folder).context("cannot read the tests")?;
            let names = sources.iter().flat_map(|source| functions_in(&source.tokens)).collect();
            functions.insert(format!("undercroft-{folder}"), names);
        }
        Ok(Self { functions })
    }

    /// Whether `test` exists. Checks of the other groups have no place to look for: whether they ran tells.
    pub fn of(&self, test: &TestRef) -> bool {
        if test.group == COMPILE_FAIL {
            let folder = test.package.trim_start_matches("undercroft-");
            let path = workspace::root().join(folder).join("tests/compile-fail").join(&test.name);
            return path.with_extension("rs").is_file() && path.with_extension("stderr").is_file();
        }
        if !HARNESS_GROUPS.contains(&test.group.as_str()) {
            return true;
        }
        self.functions.get(&test.package).is_some_and(|names| names.contains(test.function()))
    }
}

fn functions_in(tokens: &[String]) -> impl Iterator<Item = String> + '_ {
    tokens.windows(2).filter(|pair| pair[0] == "fn").map(|pair| pair[1].clone())
}

#[cfg(test)]
mod tests {
    use super::*;

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
