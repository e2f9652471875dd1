//! The file system of the first domain: busybox, Xen's tools with their libraries, the modules that serve disks, and two scripts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::closure;
use super::packages::Xen;
use crate::linux::cpio::Archive;
use crate::linux::modules;

const INIT: &str = include_str!("init.sh");
const BLOCK: &str = include_str!("block.sh");
/// What the tool stack runs, from its own directory, where its parts look for each other.
const TOOLS: [&str; 5] = ["xl", "xenstored", "xenconsoled", "xenconsole", "xen-init-dom0"];
const STORE_TOOLS: [&str; 4] = ["xenstore-ls", "xenstore-read", "xenstore-write", "xenstore-rm"];
const MODULES: [&str; 10] = [
    "xen-privcmd",
    "xenfs",
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
    "xen-blkback",
    "loop",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
];
/// Modules that a script may load, each with what it needs, by `spare`.
const SPARE: [&str; 1] = ["null_blk"];
/// Loaded by name, and so named by no program.
const LOADED_BY_NAME: &str = "libgcc_s.so.1";
const LOADER: &str = "ld-linux-x86-64.so.2";

/// The archive, without its end: the files of a run follow.
pub fn archive(xen: &Xen) -> Result<Archive> {
    let mut archive = Archive::new();
    for path in [
        "bin",
        "dev",
        "etc",
        "etc/xen",
        "etc/xen/scripts",
        "lib",
        "lib/x86_64-linux-gnu",
        "lib64",
        "modules",
        "run",
        "run/domains",
        "usr",
        "usr/bin",
        "usr/lib",
        "var",
        "var/lib",
        "var/log",
    ] {
        archive.directory(path);
    }
    archive.device("dev/console", 5, 1);
    archive.device("dev/null", 1, 3);
    archive.file("init", INIT.replace("VERSION", &xen.version).as_bytes());
    archive.file("bin/busybox", &read(&xen.linux.busybox)?);
    archive.file("etc/xen/scripts/block", BLOCK.as_bytes());
    archive.file("etc/xen/xl.conf", b"");
    let programs = programs(&mut archive, xen)?;
    let libraries = closure::libraries(&xen.root, &programs)?;
    for (name, path) in &libraries {
        let directory = if name == LOADER { "lib64" } else { "lib/x86_64-linux-gnu" };
        archive.file(&format!("{directory}/{name}"), &read(path)?);
    }
    archive.file(&format!("lib/x86_64-linux-gnu/{LOADED_BY_NAME}"), &read(&library(xen, LOADED_BY_NAME)?)?);
    let mut order = String::new();
    for module in modules::load_order(&xen.linux.modules, &MODULES)? {
        archive.file(&format!("modules/{}.ko", module.name), &module.content);
        order += &format!("{}\n", module.name);
    }
    archive.file("modules/order", order.as_bytes());
    let mut spare = String::new();
    for module in modules::load_order(&xen.linux.modules, &SPARE)? {
        archive.file(&format!("modules/{}.ko", module.name), &module.content);
        spare += &format!("{}\n", module.name);
    }
    archive.file("modules/spare", spare.as_bytes());
    Ok(archive)
}

/// Puts the programs in, and returns where they were.
fn programs(archive: &mut Archive, xen: &Xen) -> Result<Vec<PathBuf>> {
    let own = format!("usr/lib/xen-{}", xen.version);
    archive.directory(&own);
    archive.directory(&format!("{own}/bin"));
    let mut all = Vec::new();
    let tools = TOOLS.map(|tool| format!("{own}/bin/{tool}"));
    for place in tools.into_iter().chain(STORE_TOOLS.map(|tool| format!("usr/bin/{tool}"))) {
        let path = xen.root.join(&place);
        archive.file(&place, &read(&path)?);
        all.push(path);
    }
    Ok(all)
}

fn library(xen: &Xen, name: &str) -> Result<PathBuf> {
    let places = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|place| format!("{place}/{name}"));
    crate::host::packages::first(&xen.root, &places)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}
