//! Files as disks.

use std::fs::File;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use undercroft_hosts::Disk as Content;
use undercroft_hosts::scsi::{Lun, LunSettings};

use crate::options::Disk;

/// Numbers of units in the order in which they are given to disks: sparse, as real ones are.
const LUNS: [u16; 4] = [0, 5, 6, 40];

/// The number of the `index`-th disk.
pub fn number(index: usize) -> u16 {
    LUNS.get(index).copied().unwrap_or_else(|| LUNS[3] + (index + 1 - LUNS.len()) as u16)
}

/// Opens a disk's file, which nobody else may write to meanwhile.
pub fn open(disk: &Disk) -> Result<Lun> {
    let name = disk.file.display();
    let sized = matches!(disk.block_size, 512 | 4096);
    ensure!(sized, "{name}: blocks of {} bytes (512 and 4096 are possible)", disk.block_size);
    let file = File::options().read(true).write(!disk.read_only).open(&disk.file);
    let file = file.with_context(|| format!("cannot open {name}"))?;
    let bytes = file.metadata().with_context(|| format!("cannot look at {name}"))?.len();
    ensure!(bytes > 0 && bytes.is_multiple_of(u64::from(disk.block_size)), "{name}: {bytes} bytes are no whole blocks");
    let how = if disk.read_only { FlockArg::LockSharedNonblock } else { FlockArg::LockExclusiveNonblock };
    // The lock lasts as long as a descriptor of the file is open: for ever.
    let lock = Flock::lock(file.try_clone()?, how).map_err(|(_, error)| error);
    std::mem::forget(lock.with_context(|| format!("{name} is in use"))?);
    let content = Content::on_file(file).with_context(|| format!("cannot use {name}"))?;
    content.set_read_only(disk.read_only);
    let naa = disk.serial.bytes().fold(0x5000_0000_0000_0000, |naa: u64, byte| naa.rotate_left(5) ^ u64::from(byte));
    let settings = LunSettings {
        block_size: disk.block_size,
        identity: ("Msft".into(), "Virtual Disk".into(), "1.0".into()),
        serial: disk.serial.clone(),
        naa: naa & 0x0fff_ffff_ffff_ffff | 0x5000_0000_0000_0000,
        physical_exponent: if disk.block_size == 512 { 3 } else { 0 },
        ..LunSettings::default()
    };
    Ok(Lun::new(content, settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_sparse_and_differ() {
        assert_eq!((0..6).map(number).collect::<Vec<_>>(), [0, 5, 6, 40, 41, 42]);
    }
}
