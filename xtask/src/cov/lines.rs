//! The lines of files, and which of them ran.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::suite::source;

/// A file, and how many of its lines ran.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    /// Relative to the root of the workspace.
    pub path: String,
    pub covered: usize,
    pub lines: usize,
}

/// From what `llvm-cov export --format=lcov` says: the files of these crates that a guest links, without what only tests have.
///
/// # Errors
/// If a file cannot be read.
pub fn measure(root: &Path, lcov: &str, crates: &[&str]) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for (path, lines) in reached(lcov) {
        let Ok(path) = Path::new(&path).strip_prefix(root) else { continue };
        let of_crate = crates.iter().any(|name| path.starts_with(Path::new(name).join("src")));
        if !of_crate || !source::is_linked(path) {
            continue;
        }
        let text = fs::read_to_string(root.join(path)).with_context(|| path.display().to_string())?;
        files.extend(file(path, &text, &lines)?);
    }
    Ok(files)
}

/// `None` if all of it is only tests'.
fn file(path: &Path, text: &str, lines: &BTreeMap<usize, u64>) -> Result<Option<File>> {
    let tests = source::test_lines(text).with_context(|| path.display().to_string())?;
    let counted = || lines.iter().filter(|(line, _)| !tests.iter().any(|range| range.contains(line)));
    let (covered, lines) = (counted().filter(|(_, times)| **times > 0).count(), counted().count());
    Ok((lines > 0).then(|| File { path: path.display().to_string(), covered, lines }))
}

/// How often each line of each file ran. A file may be told of more than once.
fn reached(lcov: &str) -> BTreeMap<String, BTreeMap<usize, u64>> {
    let mut files: BTreeMap<String, BTreeMap<usize, u64>> = BTreeMap::new();
    let mut current = None;
    for line in lcov.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            current = Some(path.to_owned());
        } else if let (Some(path), Some((number, times))) =
            (&current, line.strip_prefix("DA:").and_then(|rest| rest.split_once(',')))
            && let (Ok(number), Ok(times)) = (number.parse(), times.parse::<u64>())
        {
            *files.entry(path.clone()).or_default().entry(number).or_default() += times;
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const LCOV: &str = "SF:/r/ata/src/a.rs\nDA:1,4\nDA:2,0\nDA:4,7\nend_of_record\n\
        SF:/r/ata/src/a.rs\nDA:2,1\nDA:3,0\nend_of_record\nSF:/other.rs\nDA:1,1\nend_of_record\n";

    #[test]
    fn a_file_told_of_twice_is_one() {
        let files = reached(LCOV);
        assert_eq!(files["/r/ata/src/a.rs"], BTreeMap::from([(1, 4), (2, 1), (3, 0), (4, 7)]));
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn what_only_tests_have_does_not_count() {
        let text = "fn a() {}\nfn b() {}\n#[cfg(test)]\nfn c() {\n}\n";
        let lines = &reached(LCOV)["/r/ata/src/a.rs"];
        let counted = file(Path::new("ata/src/a.rs"), text, lines).unwrap();
        assert_eq!(counted, Some(File { path: "ata/src/a.rs".into(), covered: 2, lines: 2 }));
        let counted = file(Path::new("ata/src/a.rs"), "fn a() {}\nfn b() {}\nfn c() {\n}\n", lines).unwrap();
        assert_eq!(counted, Some(File { path: "ata/src/a.rs".into(), covered: 3, lines: 4 }));
        let tests = "#[cfg(test)] mod tests {\nfn b() {}\nfn c() {\n}}\n";
        assert_eq!(file(Path::new("ata/src/a.rs"), tests, lines).unwrap(), None);
    }
}
