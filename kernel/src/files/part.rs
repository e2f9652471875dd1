//! The bytes of a partition, as file system crates want them: through the cache, or from the device itself. Task context.
//!
//! What a file system says is never trusted: nothing outside the partition is reached, and nothing is written without leave. Each operation has
//! a number of accesses that it may take, in proportion to the partition: a chain that goes round ends with an error.

use alloc::rc::Rc;
use core::cell::Cell;

use embedded_io::{Read, Seek, SeekFrom, Write};
use undercroft_block::Error as DiskError;
use undercroft_block::adapter::{Disk, Stream};
use undercroft_hal::Lent;
use undercroft_pagecache::Volume;

use super::Error;

/// Accesses that an operation has, whatever the size; and further ones for each 512 bytes of the partition.
const ACCESSES: u64 = 20_000;
const PER_SECTOR: u64 = 4;

/// What is below.
#[derive(Clone)]
pub(crate) enum Below {
    /// A volume, and the partition's first byte in it.
    Cache(Rc<Volume>, u64),
    /// The partition as a disk of its own.
    Device(Rc<Disk>),
    /// Its bytes.
    #[cfg(test)]
    Memory(Rc<core::cell::RefCell<std::vec::Vec<u8>>>),
}

/// See the module. Clones share what an operation may still take.
#[derive(Clone)]
pub(crate) struct Part {
    lent: Lent,
    below: Below,
    bytes: u64,
    writable: bool,
    left: Rc<Cell<u64>>,
    /// The last error of what is below, for crates that hide it.
    failed: Rc<Cell<Option<DiskError>>>,
}

impl Part {
    pub(crate) fn new(lent: Lent, below: Below, bytes: u64, writable: bool) -> Self {
        let part = Self { lent, below, bytes, writable, left: Rc::default(), failed: Rc::default() };
        part.begin();
        part
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// An operation begins.
    pub(crate) fn begin(&self) {
        self.left.set(ACCESSES.saturating_add(self.bytes / 512 * PER_SECTOR));
        self.failed.set(None);
    }

    /// Whether the last operation ended because it took too much.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.left.get() == 0
    }

    /// The disk's error, if the last operation met one.
    pub(crate) fn failed(&self) -> Option<DiskError> {
        self.failed.get()
    }

    /// Where an access lies: it is counted, and all of it is in the partition.
    fn access(&self, at: u64, len: usize) -> Result<(), Error> {
        let left = self.left.get().saturating_sub(1);
        self.left.set(left);
        if left == 0 && !is_unbounded() {
            return Err(Error::TooMuch);
        }
        let inside = at.checked_add(len as u64).is_some_and(|end| end <= self.bytes);
        if inside { Ok(()) } else { Err(Error::Corrupt) }
    }

    fn on_disk<R>(&self, run: impl FnOnce(&undercroft_hal::Task) -> Result<R, DiskError>) -> Result<R, Error> {
        // The call is over for which the token was lent: nobody waits for this any more.
        let result = self.lent.with(run).unwrap_or(Err(DiskError::Cancelled));
        result.map_err(|error| {
            self.failed.set(Some(error));
            Error::Disk(error)
        })
    }

    pub(crate) fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Error> {
        self.access(at, into.len())?;
        self.on_disk(|cx| match &self.below {
            Below::Cache(volume, first) => volume.read_blocking(cx, first + at, into),
            Below::Device(disk) => {
                let mut stream = Stream::new(cx, disk);
                stream.seek(SeekFrom::Start(at))?;
                stream.read_exact(into).map_err(|error| match error {
                    embedded_io::ReadExactError::UnexpectedEof => DiskError::OutOfRange,
                    embedded_io::ReadExactError::Other(error) => error,
                })
            }
            #[cfg(test)]
            Below::Memory(bytes) => {
                into.copy_from_slice(&bytes.borrow()[at as usize..at as usize + into.len()]);
                Ok(())
            }
        })
    }

    pub(crate) fn write(&self, at: u64, from: &[u8]) -> Result<(), Error> {
        self.access(at, from.len())?;
        self.on_disk(|cx| match &self.below {
            _ if !self.writable => Err(DiskError::ReadOnly),
            Below::Cache(volume, first) => volume.write_blocking(cx, first + at, from),
            Below::Device(disk) => {
                let mut stream = Stream::new(cx, disk);
                stream.seek(SeekFrom::Start(at))?;
                stream.write_all(from)
            }
            #[cfg(test)]
            Below::Memory(bytes) => {
                bytes.borrow_mut()[at as usize..at as usize + from.len()].copy_from_slice(from);
                Ok(())
            }
        })
    }

    /// Makes durable what was written.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.on_disk(|cx| match &self.below {
            Below::Cache(volume, first) => volume.sync_blocking(cx, *first..first + self.bytes),
            Below::Device(disk) => disk.flush_blocking(cx),
            #[cfg(test)]
            Below::Memory(_) => Ok(()),
        })
    }
}

/// A test can take the bound away.
fn is_unbounded() -> bool {
    #[cfg(test)]
    return super::tests::unbounded_access();
    #[cfg(not(test))]
    false
}
