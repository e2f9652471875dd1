//! Files: ext4 to be read, FAT to be read and written, on a disk's partitions, through the page cache or from the device itself. Task context.
//!
//! The file systems are other people's crates. They allocate, and are called outside of what must not; what a disk can make them do is bounded
//! in [`part`], [`ext4`] and [`fat`], and `tests` feeds them disks that lie.

mod check;
mod error;
mod ext4;
mod fat;
mod manifest;
mod part;
mod store;
#[cfg(test)]
mod tests;

use alloc::rc::Rc;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use undercroft_block::partition::{self, Table};
use undercroft_block::{BlockDevice, adapter};
use undercroft_hal::{Lent, Task};

pub(crate) use check::phase;
pub use error::Error;
use part::{Below, Part};

use crate::disks::Disk;

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) directory: bool,
    /// Neither a file nor a directory: a link, a device.
    pub(crate) other: bool,
}

/// A mounted file system.
pub(crate) enum Mounted {
    Ext4(ext4::Mounted),
    Fat(fat::Mounted),
}

impl Mounted {
    /// Mounts what is in a partition. `None`: nothing that is known here.
    pub(crate) fn mount(part: Part) -> Result<Option<Self>, Error> {
        part.begin();
        if ext4::is_there(&part)? {
            return ext4::Mounted::mount(part).map(|mounted| Some(Self::Ext4(mounted)));
        }
        if fat::is_there(&part)? {
            return fat::Mounted::mount(part).map(|mounted| Some(Self::Fat(mounted)));
        }
        Ok(None)
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Ext4(_) => "ext4",
            Self::Fat(_) => "fat",
        }
    }

    /// What is in a directory.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<Item>, Error> {
        match self {
            Self::Ext4(mounted) => mounted.list(path),
            Self::Fat(mounted) => mounted.list(path),
        }
    }

    /// Reads a file: its bytes, in order.
    pub(crate) fn read(&self, path: &str, with: impl FnMut(&[u8])) -> Result<u64, Error> {
        match self {
            Self::Ext4(mounted) => mounted.read(path, with),
            Self::Fat(mounted) => mounted.read(path, with),
        }
    }
}

/// How a partition is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Through {
    Cache,
    Device,
}

impl Through {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Device => "device",
        }
    }
}

/// A disk's partitions; without a table the whole disk is none.
pub(crate) fn table(cx: &Task, disk: &Disk) -> Option<Table> {
    let wrapped = adapter::Disk::new(Arc::clone(&disk.device), 1);
    // What is wrong with it was told when the disk was found.
    partition::read(cx, &wrapped).ok().flatten()
}

/// The bytes of the partition at a place in the table. `None`: there is no cache to go through.
pub(crate) fn open(
    lent: Lent,
    disk: &Disk,
    table: &Table,
    at: usize,
    through: Through,
    writable: bool,
) -> Option<Part> {
    let entry = table.entries.get(at)?;
    let size = u64::from(disk.device.info().block_size);
    let (first, bytes) = (entry.first.checked_mul(size)?, entry.blocks.checked_mul(size)?);
    let below = match through {
        Through::Cache => Below::Cache(Rc::clone(disk.volume.as_ref()?), first),
        Through::Device => {
            let partition = partition::open(&disk.device, table).into_iter().nth(at)?;
            Below::Device(Rc::new(adapter::Disk::new(partition as Arc<dyn BlockDevice>, 1)))
        }
    };
    Some(Part::new(lent, below, bytes, writable))
}
