//! How the table names a test: `GROUP PACKAGE[/TARGET] NAME`, in the words of `cargo xtask test` and of the test harness.
//!
//! `unit undercroft-hal mpsc::tests::a_bhq_01_x` is in the crate's library, `unit undercroft-hosts/breaches x24_x` in a file of its
//! `tests/`, `compile-fail undercroft-hal send_a_token` a file of its `tests/compile-fail/` that must not compile. In the groups that are
//! no harness runs (`boot`, `platform`, `faults`, `power`, `lint`) the package is `undercroft-xtask` and the name is the check's title.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// The name of one test.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct TestRef {
    pub group: String,
    pub package: String,
    /// The file in the package's `tests/`; `None` for the library or program itself.
    pub target: Option<String>,
    /// As the harness prints it, modules and all.
    pub name: String,
}

/// The group whose tests are files that must not compile.
pub const COMPILE_FAIL: &str = "compile-fail";
/// The test that compiles those files, in each crate that has any.
pub const MISUSE: &str = "misuse_does_not_compile";
/// The groups that run test harnesses.
pub const HARNESS_GROUPS: [&str; 5] = ["unit", COMPILE_FAIL, "loom", "shuttle", "sanitizer"];
/// The package of checks that this program makes itself.
pub const OURSELVES: &str = "undercroft-xtask";

impl TestRef {
    /// The name without its modules.
    pub fn function(&self) -> &str {
        self.name.rsplit("::").next().unwrap_or(&self.name)
    }
}

impl fmt::Display for TestRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.group, self.package)?;
        if let Some(target) = &self.target {
            write!(f, "/{target}")?;
        }
        write!(f, " {}", self.name)
    }
}

impl FromStr for TestRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("not GROUP PACKAGE[/TARGET] NAME: '{text}'");
        let mut words = text.splitn(3, ' ');
        let mut word = || words.next().filter(|word| !word.trim().is_empty()).ok_or_else(wrong);
        let (group, package, name) = (word()?, word()?, word()?);
        let (package, target) = match package.split_once('/') {
            Some((package, target)) => (package, Some(target.to_owned())),
            None => (package, None),
        };
        Ok(Self { group: group.into(), package: package.into(), target, name: name.into() })
    }
}

impl TryFrom<String> for TestRef {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive() {
        for text in [
            "unit undercroft-hal mpsc::tests::deterministic::a_bhq_01",
            "unit undercroft-hosts/breaches x24_refusal",
            "compile-fail undercroft-hal send_a_token",
            "boot undercroft-xtask q35: the run succeeds",
        ] {
            assert_eq!(text.parse::<TestRef>().unwrap().to_string(), text);
        }
        let test: TestRef = "unit p/t a::b::c".parse().unwrap();
        assert_eq!((test.package.as_str(), test.target.as_deref(), test.function()), ("p", Some("t"), "c"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "unit", "unit p", "unit  x", "unit p "] {
            assert!(text.parse::<TestRef>().is_err(), "{text}");
        }
    }
}
