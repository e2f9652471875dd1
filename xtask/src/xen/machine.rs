//! QEMU with Xen on it, and one or more of our domains on that.
//!
//! Xen and the first domain log to the first serial line, a file; what domains print comes on the second, our standard output. Disks are
//! virtio-blk of QEMU, which the first domain serves by xen-blkback.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::domain::Domain;
use super::packages::Xen;
use super::{dom0, packages};
use crate::run::boot::pinned;

/// The first domain's memory: its kernel, file system and tools, and what its backend sets aside for the largest rings.
const FIRST_DOMAIN_MIB: u32 = 384;
/// What Xen, its tables and the modules on the way need beside that.
const XEN_MIB: u32 = 224;

/// A machine to start.
pub struct Machine<'a> {
    pub qemu: &'a Path,
    /// What the first domain does, in its shell: `start NAME` for each domain, `outcome` or `as_qemu` at the end; or `serve`.
    pub script: &'a str,
    pub domains: &'a [Domain],
    /// Files that the first domain finds in [`DOMAINS`], by their names there: kernels, and what goes with them.
    pub files: &'a [(&'a str, &'a Path)],
    /// Where domains print and read: at a socket that is made here, or else our standard output and input.
    pub console: Option<&'a Path>,
    /// A socket that is made here, at which the first domain takes commands (`serve`).
    pub control: Option<&'a Path>,
    /// Processors of the machine.
    pub cpus: u32,
    /// The processor of the host to pin QEMU to.
    pub pin: Option<u32>,
    /// The `-drive` files: the first is the first domain's `/dev/vda`.
    pub drives: &'a [Drive<'a>],
    /// Where Xen and the first domain log.
    pub log: &'a Path,
    /// Where the archive goes.
    pub directory: &'a Path,
}

/// A disk of the machine.
pub struct Drive<'a> {
    pub file: &'a Path,
    pub block_size: u32,
    pub writable: bool,
}

/// Where the first domain finds what domains are made of.
pub const DOMAINS: &str = "/run/domains";
/// What the image is called there.
pub const IMAGE: &str = "image";
/// The name by which the first domain finds the port that commands come by.
const CONTROL: &str = "undercroft.control";

impl Machine<'_> {
    /// QEMU, and all that it is told.
    ///
    /// # Errors
    /// What could not be fetched, read or written.
    pub fn command(&self) -> Result<Command> {
        let xen = packages::fetch()?;
        let initrd = self.initrd(&xen)?;
        let memory = self.domains.iter().map(|domain| domain.memory_mib + 16).max().unwrap_or(0);
        let mut command = pinned(self.qemu, self.pin)?;
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-accel", "tcg"]);
        // Without SMAP: QEMU before 9.1 faults when the first domain, which Xen runs in ring 3, returns to itself. With AVX: without it, QEMU 7.2
        // lets the backend stand still in the middle of a load.
        command.args(["-machine", "q35", "-cpu", "max,-smap", "-smp", &self.cpus.to_string()]);
        command.args(["-m", &format!("{}M", XEN_MIB + FIRST_DOMAIN_MIB + memory)]);
        command.arg("-serial").arg(prefixed("file:", self.log)?);
        match self.console {
            None => command.args(["-serial", "stdio"]),
            Some(path) => command.arg("-chardev").arg(socket("console", path)?).args(["-serial", "chardev:console"]),
        };
        if let Some(path) = self.control {
            command.arg("-chardev").arg(socket("control", path)?).args(["-device", "virtio-serial-pci", "-device"]);
            command.arg(format!("virtserialport,chardev=control,name={CONTROL}"));
        }
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        command.arg("-kernel").arg(&xen.hypervisor);
        command.args(["-append", &format!("console=com1 com1=115200,8n1 dom0_mem={FIRST_DOMAIN_MIB}M,max:{FIRST_DOMAIN_MIB}M loglvl=all guest_loglvl=all")]);
        // A module and its arguments, then the next after a comma.
        let mut modules = OsString::from(&xen.kernel);
        modules.push(" console=hvc0 quiet panic=1 mitigations=off rdinit=/init,");
        modules.push(&initrd);
        command.arg("-initrd").arg(modules);
        for (index, drive) in self.drives.iter().enumerate() {
            command.arg("-blockdev").arg(drive.blockdev(index)?);
            command.args(["-device", &drive.device(index)]);
        }
        Ok(command)
    }

    /// The first domain's file system with the files of this run behind it.
    fn initrd(&self, xen: &Xen) -> Result<PathBuf> {
        let mut archive = dom0::archive(xen)?;
        let place = DOMAINS.trim_start_matches('/');
        for (name, path) in self.files {
            let content = fs::read(path).with_context(|| path.display().to_string())?;
            archive.file(&format!("{place}/{name}"), &content);
        }
        for domain in self.domains {
            archive.file(&format!("{place}/{}", domain.name), domain.configuration().as_bytes());
        }
        archive.file(&format!("{place}/script"), self.script.as_bytes());
        let path = self.directory.join("initrd");
        fs::write(&path, archive.finish()).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

impl Drive<'_> {
    fn blockdev(&self, index: usize) -> Result<String> {
        let file = self.file.to_str().context("QEMU needs a path that is valid UTF-8")?;
        Ok(serde_json::json!({
            "driver": "raw", "node-name": format!("disk{index}"), "read-only": !self.writable, "discard": "unmap",
            "file": { "driver": "file", "filename": file, "discard": "unmap", "locking": "on", "read-only": !self.writable },
        })
        .to_string())
    }

    fn device(&self, index: usize) -> String {
        format!("virtio-blk-pci,drive=disk{index},logical_block_size={0},physical_block_size={0}", self.block_size)
    }
}

/// A socket of QEMU's, which others may connect to one after the other.
fn socket(name: &str, path: &Path) -> Result<OsString> {
    let mut text = prefixed(&format!("socket,id={name},path="), path)?;
    text.push_str(",server=on,wait=off");
    Ok(text.into())
}

fn prefixed(prefix: &str, path: &Path) -> Result<String> {
    // A comma would begin an option.
    Ok(format!("{prefix}{}", path.to_str().context("QEMU needs a path that is valid UTF-8")?.replace(',', ",,")))
}
