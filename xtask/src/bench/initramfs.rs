//! The initramfs of each Linux that is compared with: busybox, the modules, the benchmark.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::host::program;
use crate::linux::cpio::Archive;
use crate::linux::debian::Debian;
use crate::linux::modules::load_order;

/// The modules it needs. The checksums that T10 protection information asks for by name are nobody's dependencies; a kernel
/// that has one built in has no such file.
const MODULES: [&str; 7] =
    ["crct10dif_generic", "crc64_rocksoft_generic", "virtio_pci", "virtio_blk", "sd_mod", "virtio_scsi", "vmw_pvscsi"];

const INIT: &str = include_str!("init.sh");
/// Those of a domain of Xen.
const XEN_MODULES: [&str; 1] = ["xen-blkfront"];
const XEN_INIT: &str = include_str!("xen_init.sh");
const BENCHMARK: &str = include_str!("aiobench.c");

/// Builds that of a machine of QEMU's in `directory`; each measurement takes `milliseconds`.
pub fn build(directory: &Path, debian: &Debian, milliseconds: u32) -> Result<PathBuf> {
    made(directory, debian, (INIT, &MODULES), milliseconds)
}

/// As [`build`], of a domain of Xen.
pub fn xen(directory: &Path, debian: &Debian, milliseconds: u32) -> Result<PathBuf> {
    made(directory, debian, (XEN_INIT, &XEN_MODULES), milliseconds)
}

fn made(directory: &Path, debian: &Debian, (init, modules): (&str, &[&str]), milliseconds: u32) -> Result<PathBuf> {
    let mut archive = Archive::new();
    for path in ["bin", "dev", "modules", "proc", "sys"] {
        archive.directory(path);
    }
    archive.device("dev/console", 5, 1);
    archive.file("init", init.replace("MILLISECONDS", &milliseconds.to_string()).as_bytes());
    archive.file("bin/busybox", &read(&debian.busybox)?);
    archive.file("bin/aiobench", &read(&compile(directory)?)?);
    let mut order = String::new();
    for module in load_order(&debian.modules, modules)? {
        archive.file(&format!("modules/{}.ko", module.name), &module.content);
        order += &format!("{}.ko\n", module.name);
    }
    archive.file("modules/order", order.as_bytes());
    let path = directory.join("initramfs");
    fs::write(&path, archive.finish()).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

fn compile(directory: &Path) -> Result<PathBuf> {
    let (source, program) = (directory.join("aiobench.c"), directory.join("aiobench"));
    fs::write(&source, BENCHMARK).with_context(|| source.display().to_string())?;
    let mut gcc = Command::new(program::find("gcc")?);
    gcc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o"]).arg(&program).arg(&source);
    program::run(&mut gcc)?;
    Ok(program)
}
