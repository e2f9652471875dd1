//! Debian's kernel and busybox, from their packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::host::{install, program, workspace};

/// Debian's Linux, unpacked.
pub struct Debian {
    /// Name of the kernel's package, which carries its version.
    pub package: String,
    pub kernel: PathBuf,
    pub modules: PathBuf,
    pub busybox: PathBuf,
}

/// The package that depends on the current kernel.
const NEWEST: &str = "linux-image-amd64";
const BUSYBOX: &str = "busybox-static";

/// Fetches and unpacks, unless that was done before.
pub fn fetch() -> Result<Debian> {
    let package = match kernel_package() {
        Ok(package) => package,
        Err(_) => {
            install::update_package_lists()?;
            kernel_package()?
        }
    };
    let root = workspace::target().join("undercroft").join(&package);
    let unpacked = root.join("unpacked");
    if !unpacked.is_dir() {
        eprintln!("fetching the packages {package} and {BUSYBOX}");
        fs::create_dir_all(&root).with_context(|| root.display().to_string())?;
        download(&root, &package)?;
        let new = root.join("unpacking");
        for archive in archives(&root)? {
            program::run(Command::new(program::find("dpkg")?).arg("-x").arg(&archive).arg(&new))?;
            fs::remove_file(archive)?;
        }
        fs::rename(&new, &unpacked).with_context(|| unpacked.display().to_string())?;
    }
    let version = package.trim_start_matches("linux-image-").to_owned();
    let modules = first(&unpacked, &[format!("lib/modules/{version}"), format!("usr/lib/modules/{version}")])?;
    Ok(Debian {
        kernel: first(&unpacked, &[format!("boot/vmlinuz-{version}")])?,
        busybox: first(&unpacked, &["bin/busybox".into(), "usr/bin/busybox".into()])?,
        modules,
        package,
    })
}

fn kernel_package() -> Result<String> {
    let cache = program::find("apt-cache").context("Debian's packages are needed")?;
    let said = program::run(Command::new(cache).args(["show", "--no-all-versions", NEWEST]))?;
    depends_on(&said).with_context(|| format!("{NEWEST} names no kernel"))
}

/// The kernel among the dependencies in a package's description.
fn depends_on(description: &str) -> Option<String> {
    let depends = description.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    let mut names = depends.split([',', '|']).filter_map(|one| one.split_whitespace().next());
    names.find(|name| name.starts_with("linux-image-")).map(str::to_owned)
}

fn download(directory: &Path, package: &str) -> Result<()> {
    let get = || {
        let mut command = Command::new(program::find("apt-get")?);
        // As root, apt otherwise becomes a user who may not write here, and warns.
        command.args(["-o", "APT::Sandbox::User=root", "download", package, BUSYBOX]).current_dir(directory);
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
    ensure!(found.len() == 2, "{} packages in {}, not 2", found.len(), directory.display());
    Ok(found)
}

fn first(root: &Path, candidates: &[String]) -> Result<PathBuf> {
    let found = candidates.iter().map(|candidate| root.join(candidate)).find(|path| path.exists());
    found.with_context(|| format!("no {} in {}", candidates.join(" and no "), root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_found_among_dependencies() {
        let description = "Package: linux-image-amd64\nDepends: x (>= 1), linux-image-6.1.0-18-amd64 (= 6.1.76-1)\n";
        assert_eq!(depends_on(description).unwrap(), "linux-image-6.1.0-18-amd64");
        assert_eq!(depends_on("Package: x\nDepends: y\n"), None);
    }
}
