//! What xenstore holds: paths and values, and transactions on them.

use std::collections::{BTreeMap, BTreeSet};

/// Values by absolute path. What is above a path is there, too.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree(BTreeMap<String, Vec<u8>>);

impl Tree {
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.0.get(path).map(Vec::as_slice)
    }

    /// Sets a value; without one, only makes the path.
    pub fn set(&mut self, path: &str, value: Option<&[u8]>) {
        for (at, _) in path.match_indices('/').skip(1) {
            self.0.entry(path[..at].into()).or_default();
        }
        let place = self.0.entry(path.into()).or_default();
        if let Some(value) = value {
            *place = value.to_vec();
        }
    }

    /// Removes a path and what is below it: all that is gone.
    pub fn remove(&mut self, path: &str) -> Vec<String> {
        let below = format!("{path}/");
        let gone: Vec<String> = self.0.keys().filter(|key| *key == path || key.starts_with(&below)).cloned().collect();
        gone.iter().for_each(|key| drop(self.0.remove(key)));
        gone
    }

    /// The names below a path. `None`: there is no such path.
    pub fn list(&self, path: &str) -> Option<Vec<&str>> {
        self.0.contains_key(path).then(|| {
            let below = format!("{path}/");
            let here = self.0.range(below.clone()..).take_while(|(key, _)| key.starts_with(&below));
            here.map(|(key, _)| &key[below.len()..]).filter(|name| !name.contains('/')).collect()
        })
    }
}

/// A change that a transaction is to make.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Set(String, Option<Vec<u8>>),
    Remove(String),
}

/// A transaction under way.
#[derive(Debug)]
pub(super) struct Transaction {
    before: Tree,
    pub now: Tree,
    /// What its outcome depends on.
    touched: BTreeSet<String>,
    pub changes: Vec<Change>,
}

impl Transaction {
    pub fn new(tree: &Tree) -> Self {
        Self { before: tree.clone(), now: tree.clone(), touched: BTreeSet::new(), changes: Vec::new() }
    }

    pub fn touch(&mut self, path: &str) {
        self.touched.insert(path.into());
    }

    /// Whether nothing that it depends on has changed meanwhile.
    pub fn holds(&self, tree: &Tree) -> bool {
        self.touched
            .iter()
            .all(|path| tree.get(path) == self.before.get(path) && tree.list(path) == self.before.list(path))
    }
}

/// Whether this is a path as xenstore takes them.
pub(super) fn is_path(path: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte);
    let most = if path.starts_with('/') { 3072 } else { 2048 };
    !path.is_empty()
        && path.len() <= most
        && path.bytes().all(good)
        && !path.contains("//")
        && (path == "/" || !path.ends_with('/'))
}
