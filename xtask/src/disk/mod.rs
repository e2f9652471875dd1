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

use std::path::PathBuf;

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
}

/// What stands behind a disk.
#[derive(Clone, Debug)]
pub enum Backend {
    /// A raw file or a block device of the host.
    File(PathBuf),
    /// QEMU's null device: takes everything, returns nothing in particular, costs nothing.
    Null,
}
