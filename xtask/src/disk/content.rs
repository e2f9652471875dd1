//! What is put on prepared disks: a tree of files that follows from the seed.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use sha2::{Digest, Sha256};

use super::digest::hex;
use super::pattern::mix;

/// Sizes at the edges of blocks and pages, where off-by-one lives.
const SIZES: [usize; 14] = [0, 1, 511, 512, 513, 1023, 4095, 4096, 4097, 8191, 30_000, 65_536, 131_073, 300_000];

/// The list of all others.
pub const LIST: &str = "SHA256SUMS";

/// When all files were last modified, in seconds since 1970: contents follow from the seed alone.
pub const WHEN: u64 = 1_700_000_000;

/// Writes the tree below `root`, which must exist, and returns the paths of the files relative
/// to it. `budget` bounds the bytes of all files together.
pub fn write_tree(root: &Path, seed: u64, budget: u64) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut left = budget;
    let readme = format!("A disk prepared by cargo xtask run with seed {seed}.\nEverything on it may go.\n");
    put(root, "README.TXT".into(), readme.as_bytes(), &mut files)?;
    for round in 0u64.. {
        for (i, size) in SIZES.into_iter().enumerate() {
            if size as u64 > left || round > 9 {
                list(root, &mut files)?;
                return Ok(files);
            }
            left -= size as u64;
            let directory = if i % 2 == 0 { format!("ROUND{round}") } else { format!("ROUND{round}/DEEP/ER") };
            let path = Path::new(&directory).join(format!("FILE{i:02}.BIN"));
            put(root, path, &noise(seed ^ mix(round << 8 | i as u64), size), &mut files)?;
        }
    }
    Ok(files)
}

/// Puts the list of all files into the root, as `sha256sum` prints it: by it the image knows what each is to hold.
fn list(root: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut lines = String::new();
    for path in &*files {
        let full = root.join(path);
        let content = fs::read(&full).with_context(|| format!("cannot read {}", full.display()))?;
        let _ = writeln!(lines, "{}  {}", hex(&Sha256::digest(content)), path.display());
    }
    put(root, LIST.into(), lines.as_bytes(), files)
}

fn put(root: &Path, path: PathBuf, content: &[u8], files: &mut Vec<PathBuf>) -> Result<()> {
    let full = root.join(&path);
    let say = || format!("cannot write {}", full.display());
    fs::create_dir_all(full.parent().unwrap_or(root)).with_context(say)?;
    fs::write(&full, content).with_context(say)?;
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(WHEN);
    File::options().write(true).open(&full).and_then(|file| file.set_modified(then)).with_context(say)?;
    files.push(path);
    Ok(())
}

fn noise(seed: u64, size: usize) -> Vec<u8> {
    (0..).flat_map(|i: u64| mix(seed.wrapping_add(i)).to_le_bytes()).take(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_follows_from_the_seed_and_keeps_to_its_budget() {
        let trees: Vec<_> = [1, 1, 2]
            .into_iter()
            .map(|seed| {
                let root = tempfile::tempdir().unwrap();
                let files = write_tree(root.path(), seed, 1 << 20).unwrap();
                files.into_iter().map(|f| (f.clone(), fs::read(root.path().join(f)).unwrap())).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(trees[0], trees[1]);
        assert_ne!(trees[0], trees[2]);
        let (last, list) = trees[0].last().unwrap();
        let list = std::str::from_utf8(list).unwrap();
        assert_eq!((last.as_path(), list.lines().count()), (Path::new(LIST), trees[0].len() - 1));
        assert!(list.contains("  ROUND0/DEEP/ER/FILE05.BIN\n"), "{list}");
        let bytes: usize = trees[0].iter().map(|(_, content)| content.len()).sum();
        assert!((500_000..(1 << 20) + 10_000).contains(&bytes), "{bytes}");
    }
}
