//! What the image writes to a FAT file system (`docs/console-protocol.md`, "The files that are written"), and what the host finds there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::region::Region;
use super::{Files, content, pattern};
use crate::host::program;

const DIRECTORY: &str = "Written by the image";
/// Each file in the end: what it is called, and its bytes. The numbers that are missing were removed.
const FILES: [(u64, &str, usize); 8] = [
    (0, "File number 0.pattern", 0),
    (1, "File number 1.pattern", 1),
    (3, "File number 3.pattern", 512),
    (4, "File number 4.pattern", 4096),
    (5, "File number 5.pattern", 4097),
    (6, "File number 6.pattern", 5000),
    (7, "RENAMED.BIN", 65_537),
    (8, "File number 8.pattern", 200_006),
];

/// How many files there are in the end, and how many bytes in them.
pub fn totals() -> (u64, u64) {
    (FILES.len() as u64, FILES.iter().map(|(_, _, bytes)| *bytes as u64).sum())
}

/// Looks at the FAT file system of a disk that was prepared: it is sound, all that was put there is there, and what the image has `stored`,
/// and nothing else.
///
/// # Errors
/// Names the file that is not as it should be.
pub fn check(disk: &Path, files: &Files, stored: bool, seed: u64) -> Result<()> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let part = cut(disk, files.fat, directory.path())?;
    program::run(Command::new(program::find("fsck.vfat")?).arg("-n").arg(&part))?;
    let (wanted, found) = (directory.path().join("wanted"), directory.path().join("found"));
    for path in [&wanted, &found] {
        fs::create_dir(path).context("cannot make a temporary directory")?;
    }
    let mut mcopy = Command::new(program::find("mcopy")?);
    mcopy.env("MTOOLS_SKIP_CHECK", "1").args(["-s", "-Q", "-n", "-i"]).arg(&part).arg("::*").arg(&found);
    program::run(&mut mcopy)?;
    content::write_tree(&wanted, files.seed, files.budget)?;
    if stored {
        let directory = wanted.join(DIRECTORY);
        fs::create_dir(&directory).context("cannot make a temporary directory")?;
        for (number, name, bytes) in FILES {
            fs::write(directory.join(name), pattern(seed.wrapping_add(number + 1), bytes))?;
        }
    }
    compare(&tree(&wanted)?, &tree(&found)?)
}

/// A partition, in a file of its own.
fn cut(disk: &Path, region: Region, into: &Path) -> Result<PathBuf> {
    let path = into.join("part");
    let mut from = File::open(disk).with_context(|| format!("cannot read {}", disk.display()))?;
    from.seek(SeekFrom::Start(region.start))?;
    io::copy(&mut from.take(region.length), &mut File::create(&path)?).context("cannot copy a partition")?;
    Ok(path)
}

fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    (0..).step_by(8).flat_map(|at| pattern::word(seed, at).to_le_bytes()).take(bytes).collect()
}

/// All files below a directory, by their paths.
fn tree(root: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let (mut all, mut left) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else {
                all.insert(path.strip_prefix(root)?.to_owned(), fs::read(&path)?);
            }
        }
    }
    Ok(all)
}

fn compare(wanted: &BTreeMap<PathBuf, Vec<u8>>, found: &BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for (path, content) in wanted {
        let seen = found.get(path).with_context(|| format!("{}: it is not there", path.display()))?;
        ensure!(seen == content, "{}: it holds something else", path.display());
    }
    let stranger = found.keys().find(|path| !wanted.contains_key(*path));
    ensure!(stranger.is_none(), "{}: nobody put it there", stranger.map_or(Path::new(""), PathBuf::as_path).display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Backend, prepare};

    #[test]
    fn a_changed_byte_and_a_stray_file_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let disk = prepare::prepare(directory.path(), &prepare::RECIPES[0], 16, 5).unwrap();
        let (Backend::File(path), Some(files)) = (&disk.backend, &disk.files) else { panic!("a prepared file") };
        check(path, files, false, 5).unwrap();
        let missing = format!("{:#}", check(path, files, true, 5).unwrap_err());
        assert!(missing.contains("Written by the image/File number 0.pattern: it is not there"), "{missing}");
        let put = |file: &Path, to: &str| {
            let mut command = Command::new(program::find("mcopy").unwrap());
            command.env("MTOOLS_SKIP_CHECK", "1").arg("-o").arg("-i");
            command.arg(format!("{}@@{}", path.display(), files.fat.start));
            program::run(command.arg(file).arg(to)).unwrap();
        };
        let stray = directory.path().join("stray.txt");
        fs::write(&stray, b"?").unwrap();
        put(&stray, "::/ROUND0/FILE04.BIN");
        let changed = format!("{:#}", check(path, files, false, 5).unwrap_err());
        assert_eq!(changed, "ROUND0/FILE04.BIN: it holds something else");
        let same = directory.path().join("same");
        content::write_tree(
            &{
                fs::create_dir(&same).unwrap();
                same.clone()
            },
            files.seed,
            files.budget,
        )
        .unwrap();
        put(&same.join("ROUND0/FILE04.BIN"), "::/ROUND0/FILE04.BIN");
        check(path, files, false, 5).unwrap();
        put(&stray, "::/ROUND0/stray.txt");
        let stray = format!("{:#}", check(path, files, false, 5).unwrap_err());
        assert_eq!(stray, "ROUND0/stray.txt: nobody put it there");
    }
}
