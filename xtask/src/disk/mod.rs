//! Disks: the user's own files and the ones prepared for a run, what is on them before and after.

pub mod content;
pub mod digest;
pub mod gpt;
pub mod inspect;
pub mod lock;
pub mod option;
pub mod pattern;
pub mod prepare;
pub mod region;
pub mod stored;

use std::path::PathBuf;

use anyhow::{Result, ensure};

use option::Bus;
use region::Region;

/// A disk as QEMU gets it.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What people call it.
    pub label: String,
    /// Where its bytes are.
    pub backend: Backend,
    /// Serial number: how the image and we know that we mean the same disk. No spaces, no commas,
    /// at most 20 bytes (virtio-blk has no room for more).
    pub serial: String,
    pub bus: Bus,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// Capacity in bytes.
    pub bytes: u64,
    /// What the write phase may overwrite; without it the disk is attached read only.
    pub writable: Option<Region>,
    /// The file systems that were put on it.
    pub files: Option<Files>,
}

/// File systems that hold the same files, and what is known of those.
#[derive(Clone, Debug)]
pub struct Files {
    /// The image may write files here.
    pub fat: Region,
    /// Of all files, the list of them included.
    pub count: u64,
    pub bytes: u64,
    /// Of the list.
    pub sha256: String,
    /// What the files follow from: the seed, and the bytes that they may have.
    pub seed: u64,
    pub budget: u64,
}

impl Disk {
    /// What may change, in order; `stores`: files are written, too.
    pub fn changing(&self, stores: bool) -> Vec<Region> {
        let fat = self.files.iter().filter(|_| stores).map(|files| files.fat);
        let mut regions: Vec<_> = self.writable.into_iter().chain(fat).collect();
        regions.sort_by_key(|region| region.start);
        regions
    }
}

/// What stands behind a disk.
#[derive(Clone, Debug)]
pub enum Backend {
    /// A raw file or a block device of the host.
    File(PathBuf),
    /// QEMU's null device: takes everything, returns nothing in particular, costs nothing.
    Null,
}

/// The user's disks as those of a machine that has one bus only, `bus`.
///
/// # Errors
/// Names a disk that is asked to be on another bus.
pub fn all_on(disks: Vec<Disk>, bus: Bus, machine: &str) -> Result<Vec<Disk>> {
    let one = |disk: Disk| {
        // The first is what a disk is on that is not said to be on any.
        let fits = disk.bus == Bus::VirtioBlk || disk.bus == bus;
        ensure!(fits, "disk {}: {machine} has no {}", disk.label, disk.bus.name());
        Ok(Disk { bus, ..disk })
    };
    disks.into_iter().map(one).collect()
}
