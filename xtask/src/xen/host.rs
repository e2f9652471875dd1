//! A machine that is a Xen host already, and this its first domain: the image becomes a domain beside it, by `xl`.
//!
//! Source: xl(1), xl.cfg(5). A block of a disk is what the host's device has: 512 bytes, for a file.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::domain::{Domain, Vbd};
use crate::disk::{Backend, Disk};
use crate::run::boot::Boot;

/// Creates the domain with its console, and ends as QEMU would that runs the image: twice the image's value, and one.
const SCRIPT: &str = r#"xl create -c "$2" || exit 1
case "$(sed -n 's/.*has shut down, reason code \([0-9]*\).*/\1/p' "/var/log/xen/xl-$1.log" | tail -n 1)" in
0) exit 33 ;;
3) exit 37 ;;
*) exit 35 ;;
esac"#;

/// Whether this is the first domain of a Xen host.
pub fn is_here() -> bool {
    fs::read_to_string("/proc/xen/capabilities").is_ok_and(|text| is_control(&text))
}

fn is_control(capabilities: &str) -> bool {
    capabilities.split_whitespace().any(|word| word == "control_d")
}

/// What creates the domain, prints what it says and ends with it.
///
/// # Errors
/// A disk that is no file, or has blocks that a file does not have there.
pub fn command(boot: &Boot) -> Result<Command> {
    // A name of this run's own: somebody else may run one.
    let domain = domain(boot, &name())?;
    let path = boot.directory.join("domain.cfg");
    fs::write(&path, domain.configuration()).with_context(|| path.display().to_string())?;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT, "sh", &domain.name]).arg(&path);
    Ok(command)
}

/// Ends the domain of a run that had to be stopped. It may be gone already.
pub fn destroy() {
    let _ = Command::new("xl").args(["destroy", &name()]).output();
}

fn name() -> String {
    format!("undercroft-{}", std::process::id())
}

fn domain(boot: &Boot, name: &str) -> Result<Domain> {
    Ok(Domain {
        name: name.into(),
        kernel: text(&boot.image.stripped)?,
        ramdisk: None,
        command_line: boot.command_line.into(),
        memory_mib: boot.memory_mib,
        cpus: boot.cpus,
        disks: boot.disks.iter().map(vbd).collect::<Result<_>>()?,
    })
}

fn vbd(disk: &Disk) -> Result<Vbd> {
    let Backend::File(file) = &disk.backend else { bail!("disk {}: Xen serves files", disk.label) };
    ensure!(
        disk.block_size == 512,
        "disk {}: on a Xen host a file has blocks of 512 bytes, not {}",
        disk.label,
        disk.block_size
    );
    Ok(Vbd { target: text(&fs::canonicalize(file)?)?, name: disk.serial.clone(), writable: disk.writable.is_some() })
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{}: xl needs a path that is valid UTF-8", path.display()))?;
    // What ends a word of its disk specifications.
    ensure!(!text.contains([',', '\n']), "{text}: xl cannot be told of a path with a comma");
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::option::Bus;

    #[test]
    fn the_first_domain_is_known() {
        assert!(is_control("control_d\n"));
        assert!(!is_control("") && !is_control("\n"));
    }

    #[test]
    fn a_disk_is_named_by_its_whole_path_and_blocks_are_what_a_file_has() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let disk = Disk {
            label: "one".into(),
            backend: Backend::File(file.path().into()),
            serial: "xvda".into(),
            bus: Bus::Xen,
            block_size: 512,
            bytes: 4096,
            writable: None,
            files: None,
        };
        let path = fs::canonicalize(file.path()).unwrap();
        let wanted = format!("format=raw,vdev=xvda,access=ro,target={}", path.display());
        assert_eq!(vbd(&disk).unwrap().specification(), wanted);
        assert!(vbd(&Disk { block_size: 4096, ..disk.clone() }).unwrap_err().to_string().contains("not 4096"));
        assert!(vbd(&Disk { backend: Backend::Null, ..disk }).is_err());
        assert!(text(Path::new("/a,b")).is_err());
    }
}
