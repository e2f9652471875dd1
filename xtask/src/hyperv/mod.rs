//! The image on a Hyper-V machine: the one that comes with this project (`vmm`), or OpenVMM.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::cli::Vmm;
use crate::disk::{Backend, Disk};
use crate::host::{program, workspace};
use crate::report::voice::Voice;
use crate::run::boot::Boot;

/// The device that both need.
const KVM: &str = "/dev/kvm";

/// Why there can be no such machine here, in one line.
fn kvm() -> Result<()> {
    match fs::File::options().read(true).write(true).open(KVM) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!(
                "a Hyper-V machine needs {KVM}, which this machine does not have: no virtualisation, or none for guests of its own"
            )
        }
        Err(error) => {
            bail!("a Hyper-V machine needs {KVM}, which cannot be opened ({error}): join the group that owns it")
        }
    }
}

/// The program that plays the machine, built if it is ours.
///
/// # Errors
/// What is missing.
pub fn program(vmm: Vmm, voice: Voice) -> Result<PathBuf> {
    kvm()?;
    if vmm == Vmm::Openvmm {
        return program::find("openvmm").context("--vmm openvmm: install OpenVMM, and put it into PATH");
    }
    voice.say("building the Hyper-V machine");
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--release", "--package", "undercroft-vmm"]);
    ensure!(cargo.status().context("cannot run cargo")?.success(), "the Hyper-V machine does not build");
    Ok(workspace::target().join("release/undercroft-vmm"))
}

/// The machine with all that it is told.
///
/// # Errors
/// A disk that it cannot be given.
pub fn command(boot: &Boot) -> Result<Command> {
    let mut command = Command::new(boot.qemu);
    match boot.vmm {
        Vmm::BuiltIn => built_in(&mut command, boot)?,
        Vmm::Openvmm => openvmm(&mut command, boot)?,
    }
    command.args(boot.extra);
    Ok(command)
}

fn built_in(command: &mut Command, boot: &Boot) -> Result<()> {
    command.arg("--kernel").arg(&boot.image.stripped).args(["--append", boot.command_line]);
    command.args(["--cpus", &boot.cpus.to_string(), "--memory", &boot.memory_mib.to_string()]);
    for disk in boot.disks {
        let description = json!({
            "file": file(disk)?, "serial": disk.serial, "block_size": disk.block_size, "read_only": disk.writable.is_none(),
        });
        command.args(["--disk", &description.to_string()]);
    }
    Ok(())
}

/// Direct boot, the serial port on standard output, and the disks on its own StorVSP. Not tried on a real installation yet.
fn openvmm(command: &mut Command, boot: &Boot) -> Result<()> {
    command.arg("--kernel").arg(&boot.image.stripped).args(["--cmdline", boot.command_line]);
    command.args(["--processors", &boot.cpus.to_string(), "--memory", &format!("{}MB", boot.memory_mib)]);
    command.args(["--hv", "--com1", "console"]);
    for disk in boot.disks {
        let access = if disk.writable.is_none() { ",ro" } else { "" };
        command.args(["--disk", &format!("file:{}{access}", file(disk)?)]);
    }
    Ok(())
}

fn file(disk: &Disk) -> Result<&str> {
    let Backend::File(path) = &disk.backend else { bail!("disk {}: a Hyper-V machine has files as disks", disk.label) };
    path.to_str().with_context(|| format!("disk {}: the machine needs a path that is valid UTF-8", path.display()))
}
