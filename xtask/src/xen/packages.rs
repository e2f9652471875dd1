//! What Xen is made of, from Debian's packages.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::host::{packages, program, workspace};
use crate::linux::debian::{self, Debian};

/// The package that depends on Debian's current Xen.
const NEWEST: &str = "xen-system-amd64";
const HYPERVISOR: &str = "xen-hypervisor-";
const TOOLS: &str = "xen-utils-";
const STORE_TOOLS: &str = "xenstore-utils";
/// Loaded by name only, when a thread of xl is cancelled.
const LOADED_BY_NAME: &str = "libgcc-s1";

/// Xen and the Linux of its first domain, unpacked.
pub struct Xen {
    /// As in the names of its packages.
    pub version: String,
    /// Below it lie the tools and libraries.
    pub root: PathBuf,
    /// The hypervisor as an ELF file, which QEMU starts.
    pub hypervisor: PathBuf,
    /// The first domain's kernel.
    pub kernel: PathBuf,
    pub linux: Debian,
}

/// Fetches and unpacks, unless that was done before.
pub fn fetch() -> Result<Xen> {
    let hypervisor = find(&packages::depends(NEWEST)?, HYPERVISOR)?;
    let version = hypervisor.trim_start_matches(HYPERVISOR).trim_end_matches("-amd64").to_owned();
    let directory = workspace::target().join("undercroft").join(format!("xen-{version}"));
    let root = directory.join("unpacked");
    if !root.is_dir() {
        packages::unpack(&wanted(&hypervisor, &version)?, &root)?;
    }
    let linux = debian::fetch()?;
    let packed = packages::first(&root, &[format!("boot/xen-{version}-amd64.gz")])?;
    let kernel = directory.join(format!("vmlinux-{}", linux.package));
    Ok(Xen {
        hypervisor: unpacked(&directory.join("xen"), |to| filter("gzip", &["-dc"], fs::read(&packed)?, to))?,
        // Xen could unpack it, at an emulated processor's speed.
        kernel: unpacked(&kernel, |to| linux_kernel(&linux.kernel, to))?,
        version,
        root,
        linux,
    })
}

/// The hypervisor, its tools, and every library that these depend on.
fn wanted(hypervisor: &str, version: &str) -> Result<Vec<String>> {
    let tools = format!("{TOOLS}{version}");
    let mut all = BTreeSet::from([hypervisor.to_owned(), tools.clone(), STORE_TOOLS.into(), LOADED_BY_NAME.into()]);
    let mut open = vec![tools, STORE_TOOLS.into(), LOADED_BY_NAME.into()];
    while let Some(package) = open.pop() {
        for name in packages::depends(&package)? {
            let is_library = name.starts_with("lib") || name.starts_with("zlib");
            if is_library && all.insert(name.clone()) {
                open.push(name);
            }
        }
    }
    Ok(all.into_iter().collect())
}

fn find(names: &[String], prefix: &str) -> Result<String> {
    names.iter().find(|name| name.starts_with(prefix)).cloned().with_context(|| format!("{NEWEST} names no {prefix}*"))
}

/// The file at `path`, made by `make` unless it is there already; it appears whole or not at all.
fn unpacked(path: &Path, make: impl FnOnce(File) -> Result<()>) -> Result<PathBuf> {
    if !path.exists() {
        let parent = path.parent().context("a file in a directory")?;
        let new = tempfile::NamedTempFile::new_in(parent)?;
        make(new.reopen()?).with_context(|| format!("unpacking {}", path.display()))?;
        new.persist(path)?;
    }
    Ok(path.to_owned())
}

/// Linux as an ELF file, out of the file that boot loaders take. A form of compression that is not known here is left to Xen, which gets the
/// file as it is.
fn linux_kernel(packed: &Path, to: File) -> Result<()> {
    const XZ: &[u8] = b"\xFD7zXZ\0";
    let bytes = fs::read(packed)?;
    match bytes.windows(XZ.len()).position(|window| window == XZ) {
        // What follows the stream belongs to the loader.
        Some(at) => filter("xz", &["-dc", "--single-stream"], bytes[at..].to_vec(), to),
        None => {
            use std::io::Write;
            let mut to = to;
            Ok(to.write_all(&bytes)?)
        }
    }
}

/// Sends `input` through a program into a file.
fn filter(program: &str, arguments: &[&str], input: Vec<u8>, to: File) -> Result<()> {
    use std::io::Write;
    let mut child = Command::new(program::find(program)?).args(arguments).stdin(Stdio::piped()).stdout(to).spawn()?;
    let mut pipe = child.stdin.take().context("a pipe")?;
    let writer = std::thread::spawn(move || {
        // A program that has all that it wants closes its end: its status tells.
        let _ = pipe.write_all(&input);
    });
    let status = child.wait()?;
    ensure!(writer.join().is_ok(), "the writer failed");
    if !status.success() {
        bail!("{program} failed ({status})");
    }
    Ok(())
}
