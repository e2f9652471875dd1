//! Debian's kernel and busybox, from their packages.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::host::{packages, workspace};

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
/// How the names of kernels' packages begin.
const KERNEL: &str = "linux-image-";

/// Fetches and unpacks, unless that was done before.
pub fn fetch() -> Result<Debian> {
    let mut depends = packages::depends(NEWEST)?.into_iter();
    let package = depends.find(|name| name.starts_with(KERNEL)).with_context(|| format!("{NEWEST} names no kernel"))?;
    let unpacked = workspace::target().join("undercroft").join(&package).join("unpacked");
    packages::unpack(&[package.clone(), BUSYBOX.into()], &unpacked)?;
    let version = package.trim_start_matches(KERNEL);
    Ok(Debian {
        kernel: packages::first(&unpacked, &[format!("boot/vmlinuz-{version}")])?,
        busybox: packages::first(&unpacked, &["bin/busybox".into(), "usr/bin/busybox".into()])?,
        modules: packages::first(&unpacked, &[format!("lib/modules/{version}"), format!("usr/lib/modules/{version}")])?,
        package,
    })
}
