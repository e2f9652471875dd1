//! A look at a disk file of the user's before anything is done with it. Nothing is written here.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::libc;

use super::option::{Access, Bus, DiskOption};
use super::region::{self, Contents};
use super::{Backend, Disk, gpt, lock};

/// How much of either end of a disk must be zeros for it to count as blank.
const BLANK: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// Checks the user's disks and returns them as QEMU will get them.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn inspect(options: &[DiskOption]) -> Result<Vec<Disk>> {
    let mut disks = Vec::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    for option in options {
        let DiskOption::File { file, bus, access } = option else {
            ensure!(options.len() == 1, "--disk none and other disks exclude each other");
            return Ok(Vec::new());
        };
        let say = || format!("disk {}", file.display());
        let path = file.canonicalize().map_err(|e| plain(&e)).with_context(say)?;
        if seen.contains(&path) {
            return Err(anyhow::anyhow!("it is given twice")).with_context(say);
        }
        let disk = look(&path, *bus, *access, disks.len()).with_context(say)?;
        seen.push(path);
        disks.push(disk);
    }
    Ok(disks)
}

fn look(path: &Path, bus: Bus, access: Access, index: usize) -> Result<Disk> {
    let kind = path.metadata().map_err(|e| plain(&e))?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        bail!("it is neither a file nor a block device");
    }
    let writing = matches!(access, Access::Write(_));
    let mut file = open(path, writing, kind.is_block_device())?;
    let bytes = file.seek(SeekFrom::End(0)).map_err(|e| plain(&e))?;
    ensure!(bytes > 0, "it is empty");
    ensure!(bytes >= SECTOR, "it has {bytes} bytes, less than one block of {SECTOR}");
    ensure!(
        bytes.is_multiple_of(SECTOR),
        "it has {bytes} bytes, which is not a multiple of {SECTOR}: it is not the image of a disk, or was cut short"
    );
    refuse_other_formats(&mut file, bytes)?;
    ensure!(!lock::is_held(&file, writing), "another program is using it (a virtual machine, perhaps)");
    let table = gpt::read(&file);
    // A table laid out for blocks of 4096 bytes makes sense only on a disk that has them.
    let block_size = match &table {
        Some(table) if bytes.is_multiple_of(table.block_size.into()) => table.block_size,
        _ => 512,
    };
    let contents = match table {
        Some(table) => Contents::Gpt(table),
        None if is_blank(&mut file, bytes)? => Contents::Blank,
        None => Contents::Something,
    };
    let writable = match access {
        Access::ReadOnly => None,
        Access::Write(asked) => Some(region::choose(asked, &contents, bytes, block_size)?),
    };
    Ok(Disk {
        label: path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into()),
        backend: Backend::File(path.to_owned()),
        serial: format!("uc-user-{index}"),
        bus,
        block_size,
        bytes,
        writable,
        files: None,
    })
}

fn open(path: &Path, writing: bool, block_device: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(writing);
    if writing && block_device {
        // Fails with EBUSY while the device is mounted or part of something else.
        options.custom_flags(libc::O_EXCL);
    }
    options.open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => anyhow::anyhow!("it is mounted or otherwise in use"),
        Some(libc::EACCES | libc::EPERM | libc::EROFS) if writing => {
            anyhow::anyhow!("it cannot be read and written ({error})")
        }
        _ => plain(&error),
    })
}

/// Only raw disks are attached, so that no header written by a guest is ever taken for a format.
fn refuse_other_formats(file: &mut File, bytes: u64) -> Result<()> {
    const MAGIC: [(&[u8], &str); 6] = [
        (b"QFI\xfb", "qcow2"),
        (b"KDMV", "vmdk"),
        (b"# Disk DescriptorFile", "vmdk"),
        (b"vhdxfile", "vhdx"),
        (b"conectix", "vhd"),
        (b"<<< ", "vdi"),
    ];
    let mut head = [0; 32];
    let take = head.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
    read_at(file, 0, &mut head[..take])?;
    for (magic, format) in MAGIC {
        if head.starts_with(magic) {
            bail!("it is a {format} image; only raw disks are attached: qemu-img convert -O raw makes one of it");
        }
    }
    Ok(())
}

fn is_blank(file: &mut File, bytes: u64) -> Result<bool> {
    let ends = [0, bytes.saturating_sub(BLANK)];
    let mut buffer = vec![0; usize::try_from(BLANK.min(bytes)).unwrap_or(0)];
    for start in ends {
        read_at(file, start, &mut buffer)?;
        if buffer.iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn read_at(file: &mut File, start: u64, buffer: &mut [u8]) -> Result<()> {
    file.seek(SeekFrom::Start(start))
        .and_then(|_| file.read_exact(buffer))
        .map_err(|error| anyhow::anyhow!("it cannot be read ({error})"))
}

/// The usual errors without their numbers.
fn plain(error: &std::io::Error) -> anyhow::Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => anyhow::anyhow!("there is no such file"),
        std::io::ErrorKind::PermissionDenied => anyhow::anyhow!("permission to read it is denied"),
        _ => anyhow::anyhow!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::region::Region;
    use super::*;

    fn inspected(path: &Path, access: Access) -> Result<Disk> {
        let option = DiskOption::File { file: path.into(), bus: Bus::VirtioBlk, access };
        inspect(&[option]).map(|mut disks| disks.remove(0))
    }

    fn error(content: &[u8], access: Access) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let message = format!("{:#}", inspected(file.path(), access).expect_err("must be refused"));
        assert!(message.contains(&file.path().display().to_string()), "the file is named: {message}");
        assert_eq!(std::fs::read(file.path()).unwrap(), content, "nothing is written");
        message
    }

    #[test]
    fn unsuitable_files_are_named_with_the_reason() {
        assert!(error(b"", Access::ReadOnly).contains("empty"));
        assert!(error(&[1; 511], Access::ReadOnly).contains("less than one block"));
        assert!(error(&[1; 513], Access::ReadOnly).contains("not a multiple"));
        assert!(error(&[b"QFI\xfb".as_slice(), &[0; 508]].concat(), Access::ReadOnly).contains("qcow2"));
        assert!(error(&[1; 4096], Access::Write(None)).contains("rw=START:LENGTH"));
        let missing = format!("{:#}", inspected(Path::new("/nowhere/x.img"), Access::ReadOnly).unwrap_err());
        assert!(missing.contains("/nowhere/x.img") && missing.contains("no such file"), "{missing}");
        let directory = format!("{:#}", inspected(Path::new("/"), Access::ReadOnly).unwrap_err());
        assert!(directory.contains("neither a file"), "{directory}");
    }

    #[test]
    fn a_blank_file_may_be_written_whole_and_a_signature_at_either_end_is_seen() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let whole = Some(Region { start: 0, length: 4 << 20 });
        let mut content = vec![0; 4 << 20];
        for (at, byte, wanted) in [(0, 0, whole), (65_536 + 64, 1, None), ((4 << 20) - 512, 1, None)] {
            content[at] = byte;
            std::fs::write(file.path(), &content).unwrap();
            content[at] = 0;
            assert_eq!(inspected(file.path(), Access::Write(None)).ok().and_then(|disk| disk.writable), wanted);
        }
    }

    #[test]
    fn the_same_file_twice_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let option = DiskOption::File { file: file.path().into(), bus: Bus::VirtioBlk, access: Access::ReadOnly };
        let message = format!("{:#}", inspect(&[option.clone(), option]).unwrap_err());
        assert!(message.contains("twice"), "{message}");
    }
}
