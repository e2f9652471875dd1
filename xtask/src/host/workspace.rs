//! The source tree this xtask belongs to.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The root of the workspace.
pub fn root() -> &'static Path {
    // xtask/ is one level below it.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root());
    command
}

/// The directory cargo builds into.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |path| root().join(path))
}

/// A new directory for the files of one run; removed when dropped, unless kept.
pub fn scratch() -> Result<tempfile::TempDir> {
    let parent = target().join("undercroft");
    let say = || format!("cannot make a directory in {}", parent.display());
    fs::create_dir_all(&parent).with_context(say)?;
    tempfile::Builder::new().prefix("run-").tempdir_in(&parent).with_context(say)
}

/// The folders of all crates.
pub fn members() -> Result<Vec<String>> {
    let manifest = root().join("Cargo.toml");
    let text = fs::read_to_string(&manifest).with_context(|| manifest.display().to_string())?;
    let list = text.split_once("\nmembers = [").and_then(|(_, rest)| rest.split_once(']'));
    let (list, _) = list.with_context(|| format!("{} names no members", manifest.display()))?;
    Ok(list.split(',').map(|word| word.trim().trim_matches('"').to_owned()).filter(|word| !word.is_empty()).collect())
}

/// The folders that hold all sources: a crate inside another's folder belongs to that one.
pub fn folders() -> Result<Vec<String>> {
    let members = members()?;
    let inner = |folder: &String| members.iter().any(|member| folder.starts_with(&format!("{member}/")));
    Ok(members.iter().filter(|folder| !inner(folder)).cloned().collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_member_is_a_crate() {
        let members = super::members().unwrap();
        assert!(members.iter().any(|m| m == "xtask") && members.iter().any(|m| m == "kernel"), "{members:?}");
        assert!(members.iter().all(|m| super::root().join(m).join("Cargo.toml").is_file()), "{members:?}");
        let folders = super::folders().unwrap();
        assert!(folders.iter().any(|f| f == "hal") && folders.iter().all(|f| !f.starts_with("hal/")), "{folders:?}");
    }
}
