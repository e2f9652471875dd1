//! What became of each test when it last ran: `target/audit/results.json`, written by every `cargo xtask test`.
//!
//! A group's outcomes are replaced as a whole, together with a digest of the source that they are about: a test that passed in some other
//! state of the source has shown nothing about this one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::reference::TestRef;
use crate::host::workspace;

/// The outcomes of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRun {
    /// Of the source, as [`digest`] computes it, before the run.
    pub source: String,
    /// Whether each test passed, by its full name.
    pub passed: BTreeMap<String, bool>,
}

impl GroupRun {
    pub fn new(source: String) -> Self {
        Self { source, passed: BTreeMap::new() }
    }

    /// Takes down an outcome. A test that ran more than once has passed only if it always did.
    pub fn record(&mut self, test: &TestRef, passed: bool) {
        let all = self.passed.entry(test.to_string()).or_insert(true);
        *all &= passed;
    }
}

/// The outcomes of all groups, by the group that ran them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    pub groups: BTreeMap<String, GroupRun>,
}

/// What the results say about a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    /// Not in the last run of its group.
    DidNotRun,
    /// In a run of another state of the source.
    Stale,
}

impl Results {
    fn file() -> PathBuf {
        workspace::target().join("audit").join("results.json")
    }

    /// The results so far; none if nothing ran yet.
    pub fn load() -> Result<Self> {
        let path = Self::file();
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged; remove it", path.display()))
    }

    pub fn save(&self) -> Result<()> {
        let path = Self::file();
        let say = || path.display().to_string();
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(say)?;
        }
        // A reader finds the old file or the new one.
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(self)?).with_context(say)?;
        fs::rename(&new, &path).with_context(say)
    }

    /// What became of `test`, if the source is still as it was.
    pub fn outcome(&self, test: &TestRef, source: &str) -> Outcome {
        let Some(run) = self.groups.get(&test.group) else { return Outcome::DidNotRun };
        match run.passed.get(&test.to_string()) {
            None => Outcome::DidNotRun,
            Some(_) if run.source != source => Outcome::Stale,
            Some(true) => Outcome::Passed,
            Some(false) => Outcome::Failed,
        }
    }
}

/// Notes that every check on the source depends on: the members' Rust files, manifests and expected compiler messages.
///
/// # Errors
/// If a file cannot be read.
pub fn digest() -> Result<String> {
    let root = workspace::root();
    let mut paths = vec![root.join("Cargo.toml"), root.join("Cargo.lock")];
    for folder in workspace::members()? {
        collect(&root.join(folder), &mut paths)?;
    }
    paths.sort();
    let mut hash = Sha256::new();
    for path in paths {
        let content = fs::read(&path).with_context(|| path.display().to_string())?;
        hash.update(path.strip_prefix(root).unwrap_or(&path).as_os_str().as_encoded_bytes());
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target" && name != "wip") {
                collect(&path, paths)?;
            }
        } else if path
            .extension()
            .is_some_and(|extension| ["rs", "toml", "stderr", "ld", "s"].iter().any(|e| extension == *e))
        {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_of_one_group_and_one_source() {
        let test: TestRef = "loom p a".parse().unwrap();
        let mut results = Results::default();
        assert_eq!(results.outcome(&test, "s"), Outcome::DidNotRun);
        let mut run = GroupRun::new("s".into());
        run.record(&test, true);
        results.groups.insert("loom".into(), run.clone());
        assert_eq!(results.outcome(&test, "s"), Outcome::Passed);
        assert_eq!(results.outcome(&test, "t"), Outcome::Stale);
        assert_eq!(results.outcome(&"loom p b".parse().unwrap(), "s"), Outcome::DidNotRun);
        assert_eq!(results.outcome(&"unit p a".parse().unwrap(), "s"), Outcome::DidNotRun);
        // Once failed, a later pass in the same run mends nothing.
        run.record(&test, false);
        run.record(&test, true);
        results.groups.insert("loom".into(), run);
        assert_eq!(results.outcome(&test, "s"), Outcome::Failed);
    }

    #[test]
    fn results_survive_being_written() {
        let mut run = GroupRun::new("s".into());
        run.record(&"unit p/t a::b".parse().unwrap(), false);
        let results = Results { groups: [("unit".to_owned(), run)].into() };
        let text = serde_json::to_string(&results).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results);
    }

    #[test]
    fn the_digest_is_of_the_source() {
        let digest = digest().unwrap();
        assert_eq!((digest.len(), super::digest().unwrap()), (64, digest));
    }
}
