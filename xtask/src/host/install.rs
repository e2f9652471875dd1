//! What a command needs of the host: what is missing is announced, then installed by rustup and
//! apt-get, or else named together with the command that would install it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::program;

/// A program and the Debian packages that bring it, separated by spaces.
pub struct Tool {
    pub program: &'static str,
    pub package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

pub const QEMU: [Tool; 1] = [tool("qemu-system-x86_64", "qemu-system-x86")];
pub const FILE_SYSTEMS: [Tool; 3] =
    [tool("mkfs.ext4", "e2fsprogs"), tool("mkfs.vfat", "dosfstools"), tool("mcopy", "mtools")];
pub const CHECKERS: [Tool; 3] = [tool("sgdisk", "gdisk"), tool("e2fsck", "e2fsprogs"), tool("fsck.vfat", "dosfstools")];

pub const LINUX_BENCH: [Tool; 3] =
    [tool("gcc", "gcc libc6-dev"), tool("taskset", "util-linux"), tool("xz", "xz-utils")];
/// What unpacks Xen and the Linux of its first domain.
pub const XEN: [Tool; 3] = [tool("xz", "xz-utils"), tool("gzip", "gzip"), tool("dpkg", "dpkg")];
/// Disks that fail, served over a socket.
pub const FAULTS: [Tool; 1] = [tool("nbdkit", "nbdkit")];
/// What libFuzzer itself is built with.
pub const FUZZ: [Tool; 1] = [tool("g++", "g++")];

/// The target the image is built for.
pub const TARGET: &str = "x86_64-unknown-none";

/// Makes sure of the given programs.
pub fn tools<'a>(wanted: impl IntoIterator<Item = &'a Tool>) -> Result<()> {
    let missing: Vec<&Tool> = wanted.into_iter().filter(|tool| program::find(tool.program).is_err()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().flat_map(|tool| tool.package.split(' ')).collect();
    packages.sort_unstable();
    packages.dedup();
    let programs = missing.iter().map(|tool| tool.program).collect::<Vec<_>>().join(", ");
    let by_hand = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    let missing_programs = || format!("missing: {programs}; install with: {by_hand}");
    let Some(prefix) = root_prefix() else {
        bail!("{} (as root; there is no sudo to do it with here)", missing_programs());
    };
    program::find("apt-get").map_err(|_| {
        anyhow::anyhow!(
            "missing: {programs}; this system has no apt-get: install what Debian calls {}",
            packages.join(", ")
        )
    })?;
    eprintln!("missing: {programs}");
    eprintln!("installing the packages {} with apt-get", packages.join(", "));
    apt(&prefix, &["update", "-q"]).with_context(missing_programs)?;
    let install = ["install", "-y", "-q", "--no-install-recommends"];
    apt(&prefix, &[&install, packages.as_slice()].concat()).with_context(missing_programs)?;
    for tool in missing {
        program::find(tool.program).with_context(|| format!("after installing {}", tool.package))?;
    }
    Ok(())
}

/// Reads the lists of packages anew.
pub fn update_package_lists() -> Result<()> {
    let by_hand = || "the lists of packages are missing or out of date; as root: apt-get update";
    let prefix = root_prefix().with_context(by_hand)?;
    eprintln!("updating the lists of packages with apt-get");
    apt(&prefix, &["update", "-q"]).with_context(by_hand)
}

/// What goes before a command that needs root; `None` if it cannot be had.
fn root_prefix() -> Option<Vec<String>> {
    if nix::unistd::geteuid().is_root() {
        return Some(Vec::new());
    }
    let sudo = program::find("sudo").ok()?.to_str()?.to_owned();
    if std::io::stdin().is_terminal() {
        return Some(vec![sudo]);
    }
    let quietly = Command::new(&sudo).args(["-n", "true"]).stderr(Stdio::null()).status();
    quietly.is_ok_and(|status| status.success()).then(|| vec![sudo, "-n".into()])
}

fn apt(prefix: &[String], arguments: &[&str]) -> Result<()> {
    let words: Vec<&str> = prefix
        .iter()
        .map(String::as_str)
        .chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .chain(arguments.iter().copied())
        .collect();
    let stdin = if prefix.is_empty() { Stdio::null() } else { Stdio::inherit() };
    // Its standard output is not ours to fill: with --json that belongs to the events.
    let output = Command::new(words[0]).args(&words[1..]).stdin(stdin).stdout(std::io::stderr()).status();
    let status = output.with_context(|| format!("cannot run {}", words[0]))?;
    if !status.success() {
        bail!("apt-get {} failed ({status})", arguments[0]);
    }
    Ok(())
}

/// Makes sure that the toolchain can build the image.
pub fn rust_target() -> Result<()> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let libraries = program::run(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))?;
    if Path::new(libraries.trim()).is_dir() {
        return Ok(());
    }
    rustup(&["target", "add", TARGET])
}

/// Makes sure of components of the toolchain, by the program each brings.
pub fn rust_component(program: &str, component: &str) -> Result<()> {
    let present = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if present.is_ok_and(|status| status.success()) { Ok(()) } else { rustup(&["component", "add", component]) }
}

/// The standard library's source, to build it with other flags.
pub fn rust_source() -> Result<()> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().context("cannot run rustc")?;
    let sysroot = String::from_utf8_lossy(&sysroot.stdout).trim().to_owned();
    let present = Path::new(&sysroot).join("lib/rustlib/src/rust/library/Cargo.lock").exists();
    if present { Ok(()) } else { rustup(&["component", "add", "rust-src"]) }
}

/// Makes sure of the LLVM programs that belong to the compiler, and says where they are.
pub fn llvm_tools() -> Result<PathBuf> {
    let libraries = Command::new("rustc").args(["--print", "target-libdir"]).output().context("cannot run rustc")?;
    let libraries = String::from_utf8_lossy(&libraries.stdout).trim().to_owned();
    let folder = Path::new(&libraries).with_file_name("bin");
    if !folder.join("llvm-profdata").exists() {
        rustup(&["component", "add", "llvm-tools"])?;
    }
    Ok(folder)
}

fn rustup(arguments: &[&str]) -> Result<()> {
    let words = arguments.join(" ");
    eprintln!("the Rust toolchain lacks {}; running: rustup {words}", arguments[arguments.len() - 1]);
    let status = Command::new("rustup").args(arguments).stdin(Stdio::null()).stdout(std::io::stderr()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("rustup {words} failed ({status})"),
        Err(error) => bail!("rustup {words} is needed, but rustup cannot be run ({error})"),
    }
}
