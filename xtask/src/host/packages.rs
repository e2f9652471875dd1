//! Debian's packages as files: described, fetched and unpacked, not installed. No root needed, unless the lists of packages
//! are out of date.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{install, program};

/// The packages that `package` depends on, the first of each choice, without versions.
pub fn depends(package: &str) -> Result<Vec<String>> {
    let said = described(package).or_else(|_| {
        install::update_package_lists()?;
        described(package)
    })?;
    Ok(dependencies(&said))
}

fn described(package: &str) -> Result<String> {
    let cache = program::find("apt-cache").context("Debian's packages are needed")?;
    let said = program::run(Command::new(cache).args(["show", "--no-all-versions", package]))?;
    ensure!(!said.trim().is_empty(), "Debian has no package {package}");
    Ok(said)
}

fn dependencies(description: &str) -> Vec<String> {
    let lines = description
        .lines()
        .filter_map(|line| line.strip_prefix("Depends: ").or_else(|| line.strip_prefix("Pre-Depends: ")));
    let choices = lines.flat_map(|line| line.split(','));
    let first = choices.filter_map(|choice| choice.split('|').next()?.split_whitespace().next());
    first.map(|name| name.split(':').next().unwrap_or(name).to_owned()).collect()
}

/// Fetches `packages` and unpacks them all into one directory, unless `unpacked` is there already.
pub fn unpack(packages: &[String], unpacked: &Path) -> Result<()> {
    if unpacked.is_dir() {
        return Ok(());
    }
    eprintln!("fetching the packages {}", packages.join(", "));
    let parent = unpacked.parent().context("a directory inside another")?;
    fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    // Beside the result, so that it appears whole or not at all.
    let scratch = tempfile::Builder::new().prefix("fetching-").tempdir_in(parent)?;
    download(scratch.path(), packages)?;
    let new = scratch.path().join("unpacked");
    let archives = archives(scratch.path())?;
    ensure!(archives.len() == packages.len(), "{} of {} packages came", archives.len(), packages.len());
    for archive in archives {
        program::run(Command::new(program::find("dpkg")?).arg("-x").arg(&archive).arg(&new))?;
    }
    fs::rename(&new, unpacked).with_context(|| unpacked.display().to_string())
}

fn download(directory: &Path, packages: &[String]) -> Result<()> {
    let get = || {
        let mut command = Command::new(program::find("apt-get")?);
        // As root, apt otherwise becomes a user who may not write here, and warns.
        command.args(["-o", "APT::Sandbox::User=root", "download"]).args(packages).current_dir(directory);
        program::run(&mut command).map(drop)
    };
    get().or_else(|_| {
        // Lists out of date name files that are gone.
        install::update_package_lists()?;
        get()
    })
}

fn archives(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The first of `candidates` that is there below `root`.
pub fn first(root: &Path, candidates: &[String]) -> Result<PathBuf> {
    let found = candidates.iter().map(|candidate| root.join(candidate)).find(|path| path.exists());
    found.with_context(|| format!("no {} in {}", candidates.join(" and no "), root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_without_versions_and_choices() {
        let description = "Package: x\nPre-Depends: a\nDepends: libc6 (>= 2.35), python3:any, b | c, d (= 1)\n";
        assert_eq!(dependencies(description), ["a", "libc6", "python3", "b", "d"]);
        assert!(dependencies("Package: x\n").is_empty());
    }
}
