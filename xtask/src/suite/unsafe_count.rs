//! The count of `unsafe` in each crate, against the numbers in `xtask/unsafe-count.txt`, which
//! may only fall.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::source;
use crate::host::workspace;

/// Count by folder; a folder without any is not listed.
pub type Counts = BTreeMap<String, u64>;

/// Counts the keyword in all crates.
pub fn count() -> Result<Counts> {
    let mut counts = Counts::new();
    for folder in workspace::folders()? {
        let sources = source::of(workspace::root(), &folder)?;
        // What a program links: a test's own allocator, say, is not part of it.
        let linked = sources.iter().filter(|source| is_linked(&source.path));
        let count = linked.flat_map(|source| &source.tokens).filter(|token| *token == "unsafe").count();
        if count > 0 {
            counts.insert(folder, count as u64);
        }
    }
    Ok(counts)
}

/// Whether a file is part of a program: not of a test or a measurement.
fn is_linked(path: &Path) -> bool {
    let apart = ["tests", "benches"];
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    !path.components().any(|part| apart.iter().any(|name| part.as_os_str() == *name))
        && stem != "tests"
        && !stem.ends_with("_tests")
}

fn file() -> PathBuf {
    workspace::root().join("xtask").join("unsafe-count.txt")
}

/// The numbers that are checked in.
pub fn allowed() -> Result<Counts> {
    let path = file();
    parse(&fs::read_to_string(&path).with_context(|| path.display().to_string())?)
        .with_context(|| path.display().to_string())
}

fn parse(text: &str) -> Result<Counts> {
    let mut counts = Counts::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let count = line.split_once(' ').and_then(|(folder, count)| Some((folder, count.parse().ok()?)));
        let (folder, count) = count.with_context(|| format!("not FOLDER COUNT: {line}"))?;
        counts.insert(folder.to_owned(), count);
    }
    Ok(counts)
}

/// Compares; the error says for each crate what to do.
pub fn compare(now: &Counts, allowed: &Counts) -> Result<()> {
    let mut wrong = Vec::new();
    for folder in now.keys().chain(allowed.keys().filter(|folder| !now.contains_key(*folder))) {
        let (now, allowed) = (now.get(folder).copied().unwrap_or(0), allowed.get(folder).copied().unwrap_or(0));
        if now > allowed {
            wrong.push(format!("{folder} has {now} uses of unsafe, {allowed} are allowed: do without the new ones"));
        } else if now < allowed {
            wrong.push(format!("{folder} has {now} uses of unsafe, fewer than {allowed}: cargo xtask lint --lower"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!(wrong.join("\n")) }
}

/// Lowers the checked-in numbers to those of today; none is ever raised.
pub fn lower() -> Result<()> {
    let (now, allowed) = (count()?, allowed()?);
    let mut text = String::from(HEAD);
    for (folder, allowed) in &allowed {
        let count = now.get(folder).copied().unwrap_or(0).min(*allowed);
        if count > 0 {
            text += &format!("{folder} {count}\n");
        }
    }
    let path = file();
    fs::write(&path, text).with_context(|| path.display().to_string())
}

const HEAD: &str = "# Uses of `unsafe` allowed in each folder. They may only fall: cargo xtask lint --lower\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, u64)]) -> Counts {
        pairs.iter().map(|&(folder, count)| (folder.to_owned(), count)).collect()
    }

    #[test]
    fn only_the_keyword_counts() {
        let text = r##"
            //! unsafe in documentation
            #![forbid(unsafe_code)]
            /// unsafe
            unsafe fn f() { /* unsafe */ let s = "unsafe"; let r = r#"unsafe"#; unsafe { g() } }
            unsafe impl Send for X {}
        "##;
        let found = source::tokens(text).unwrap().iter().filter(|token| *token == "unsafe").count();
        assert_eq!(found, 3);
    }

    #[test]
    fn tests_and_measurements_do_not_count() {
        let is = |path: &str| is_linked(Path::new(path));
        assert!(is("hal/src/heap/locked.rs") && is("hal/src/bench.rs") && is("hal/src/attestation.rs"));
        assert!(!is("hal/tests/trap.rs") && !is("hal/benches/src/heap.rs"));
        assert!(!is("hal/src/heap/tests/locked.rs") && !is("hal/src/dma/tests.rs") && !is("hal/src/mpsc_tests.rs"));
    }

    #[test]
    fn more_is_refused_fewer_must_be_kept_and_the_same_is_right() {
        let allowed = counts(&[("hal", 5)]);
        assert!(compare(&counts(&[("hal", 5)]), &allowed).is_ok());
        assert!(compare(&counts(&[("hal", 6)]), &allowed).unwrap_err().to_string().contains("do without"));
        assert!(compare(&counts(&[("hal", 4)]), &allowed).unwrap_err().to_string().contains("--lower"));
        assert!(compare(&counts(&[]), &allowed).is_err());
        assert!(compare(&counts(&[("hal", 5), ("block", 1)]), &allowed).is_err());
    }

    #[test]
    fn the_file_is_read() {
        assert_eq!(parse("# head\nhal 12\n\nx 3\n").unwrap(), counts(&[("hal", 12), ("x", 3)]));
        assert!(parse("hal\n").is_err() && parse("hal many\n").is_err());
    }
}
