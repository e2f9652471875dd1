//! The image as a domain of the real Xen hypervisor.
//!
//! On a Xen host: by `xl`, see [`host`]. On a machine without Xen: Debian's Xen, unmodified, under QEMU with a Linux of Debian's as its first domain, which serves disks
//! by xen-blkback and creates our domains by xl. Nothing of it is installed: packages are fetched and unpacked below the directory
//! that cargo builds into, and the first domain's file system is an archive made of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::disk::{Backend, Disk};
use crate::report::voice::Voice;
use crate::run::boot::Boot;
use domain::{Domain, Vbd};
use machine::{Drive, Machine};

mod closure;
mod dom0;
pub mod domain;
pub mod host;
pub mod lab;
pub mod machine;
mod packages;
mod trouble;

/// Where Xen and the first domain log, in a run's directory.
const LOG: &str = "xen.log";
/// The domain of a run, which ends QEMU as our image would.
const NAME: &str = "undercroft";

/// QEMU with Xen (or `xl`, on a Xen host), and the image as a domain of it with the disks of `boot`.
///
/// # Errors
/// A disk that Xen cannot be given, or what could not be fetched.
pub fn command(boot: &Boot) -> Result<Command> {
    if host::is_here() {
        return host::command(boot);
    }
    let mut drives = Vec::new();
    let mut disks = Vec::new();
    for (index, disk) in boot.disks.iter().enumerate() {
        let Backend::File(file) = &disk.backend else { bail!("disk {}: Xen serves files", disk.label) };
        drives.push(Drive { file, block_size: disk.block_size, writable: disk.writable.is_some() });
        disks.push(vbd(index, disk));
    }
    let domain = Domain {
        name: NAME.into(),
        kernel: format!("{}/{}", machine::DOMAINS, machine::IMAGE),
        ramdisk: None,
        command_line: boot.command_line.into(),
        memory_mib: boot.memory_mib,
        cpus: boot.cpus,
        disks,
    };
    let machine = Machine {
        qemu: boot.qemu,
        script: &format!("start {NAME}\nas_qemu \"$reason\"\n"),
        domains: &[domain],
        files: &[(machine::IMAGE, &boot.image.stripped)],
        console: None,
        control: None,
        cpus: boot.cpus,
        pin: boot.pin,
        drives: &drives,
        log: &boot.directory.join(LOG),
        directory: boot.directory,
    };
    let mut command = machine.command().context("Xen under QEMU")?;
    command.args(boot.extra);
    Ok(command)
}

/// Disks known by their names as a domain's: they have no serial numbers.
pub fn named(disks: Vec<Disk>) -> Vec<Disk> {
    disks.into_iter().enumerate().map(|(index, disk)| Disk { serial: domain::vbd_name(index), ..disk }).collect()
}

fn vbd(index: usize, disk: &Disk) -> Vbd {
    let target = format!("/dev/vd{}", domain::vbd_name(index).trim_start_matches("xvd"));
    Vbd { target, name: disk.serial.clone(), writable: disk.writable.is_some() }
}

/// Says what Xen's log of a run that failed tells: what is known for trouble, and its last lines.
pub fn say_what_happened(directory: &Path, voice: Voice) {
    if host::is_here() {
        return host::destroy();
    }
    const LINES: usize = 20;
    let log = fs::read(directory.join(LOG)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    if let Some(trouble) = trouble::explain(&log) {
        voice.say(&format!("Xen: {trouble}"));
    }
    let lines: Vec<&str> = log.lines().collect();
    voice.say("---- the last of Xen's log ----");
    lines[lines.len().saturating_sub(LINES)..].iter().for_each(|line| voice.say(line));
    voice.say("-------------------------------");
}
