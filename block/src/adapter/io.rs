//! A disk as a stream of bytes: `embedded-io`'s `Read`, `Write` and `Seek`, for file system crates that want those. Task context; each call waits.
//!
//! One chunk of whole blocks is held. What is written goes to the device at once, with what was around it in its blocks; it is durable after `flush`.
//! Two streams of one disk do not see each other's chunk: a stream that reads what another has written seeks first.

use embedded_io::{ErrorKind, ErrorType, Read, Seek, SeekFrom, Write};
use undercroft_hal::Task;
use undercroft_hal::dma::DmaBuf;

use super::{Disk, Failed};
use crate::{Data, Error, Piece};

/// Bytes of a chunk at least.
const CHUNK: u64 = 4096;

/// A position on a disk.
pub struct Stream<'a> {
    cx: &'a Task,
    disk: &'a Disk,
    /// Not here while a request has it.
    buffer: Option<DmaBuf>,
    /// Which chunk the buffer holds.
    held: Option<u64>,
    at: u64,
}

/// Some blocks, and how many bytes they are.
#[derive(Clone, Copy)]
struct Extent {
    lba: u64,
    bytes: usize,
}

impl<'a> Stream<'a> {
    /// A stream at the first byte. Allocates when it is used first.
    pub const fn new(cx: &'a Task, disk: &'a Disk) -> Self {
        Self { cx, disk, buffer: None, held: None, at: 0 }
    }

    /// Bytes of the disk now.
    fn len(&self) -> u64 {
        self.disk.device().info().bytes()
    }

    /// The chunk that the position is in, where that begins in it, and where it lies. `None` at the end.
    fn place(&self) -> Option<(u64, usize, Extent)> {
        let info = self.disk.device().info();
        let block = u64::from(info.block_size.max(1));
        let size = CHUNK.next_multiple_of(block);
        let (chunk, within) = (self.at / size, (self.at % size) as usize);
        let left = info.bytes().checked_sub(chunk * size).filter(|left| *left > within as u64)?;
        Some((chunk, within, Extent { lba: chunk * (size / block), bytes: left.min(size) as usize }))
    }

    /// Lends the buffer to one request.
    fn transfer(
        &mut self,
        extent: Extent,
        run: impl FnOnce(&Disk, &Task, u64, Data) -> Result<Data, Failed>,
    ) -> Result<(), Error> {
        self.held = None;
        let buffer = match self.buffer.take() {
            Some(buffer) if buffer.len() >= extent.bytes => buffer,
            _ => DmaBuf::new(extent.bytes, self.disk.device().info().limits.dma).map_err(|_| Error::NoMemory)?,
        };
        let data = Data::One(Piece::new(buffer, 0, extent.bytes));
        let (data, result) = match run(self.disk, self.cx, extent.lba, data) {
            Ok(data) => (data, Ok(())),
            Err(failed) => (failed.data, Err(failed.error)),
        };
        self.buffer = data.into_buf().ok();
        result
    }

    fn load(&mut self, chunk: u64, extent: Extent) -> Result<(), Error> {
        if self.held != Some(chunk) {
            self.transfer(extent, |disk, cx, lba, data| disk.read_blocking(cx, lba, data))?;
            self.held = Some(chunk);
        }
        Ok(())
    }
}

impl ErrorType for Stream<'_> {
    type Error = Error;
}

impl embedded_io::Error for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::OutOfRange | Self::BadLength | Self::TooLarge | Self::Unreachable => ErrorKind::InvalidInput,
            Self::ReadOnly => ErrorKind::PermissionDenied,
            Self::Unsupported => ErrorKind::Unsupported,
            Self::TimedOut => ErrorKind::TimedOut,
            Self::Cancelled => ErrorKind::Interrupted,
            Self::NoMemory => ErrorKind::OutOfMemory,
            Self::Removed | Self::NotReady => ErrorKind::NotConnected,
            _ => ErrorKind::Other,
        }
    }
}

impl Read for Stream<'_> {
    /// Reads up to the end of a chunk; nothing at the end of the disk.
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        let Some((chunk, within, extent)) = self.place().filter(|_| !into.is_empty()) else { return Ok(0) };
        self.load(chunk, extent)?;
        let held = self.buffer.as_deref().and_then(|bytes| bytes.get(within..extent.bytes)).ok_or(Error::Broken)?;
        let count = held.len().min(into.len());
        into[..count].copy_from_slice(&held[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Stream<'_> {
    /// Writes up to the end of a chunk.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] at the end of the disk; the device's.
    fn write(&mut self, from: &[u8]) -> Result<usize, Error> {
        if from.is_empty() {
            return Ok(0);
        }
        let (chunk, within, extent) = self.place().ok_or(Error::OutOfRange)?;
        self.load(chunk, extent)?;
        let held = self.buffer.as_deref_mut().and_then(|bytes| bytes.get_mut(within..extent.bytes));
        let held = held.ok_or(Error::Broken)?;
        let count = held.len().min(from.len());
        held[..count].copy_from_slice(&from[..count]);
        // A write that failed may have been done in part: what is there is read again.
        self.transfer(extent, |disk, cx, lba, data| disk.write_blocking(cx, lba, data))?;
        self.held = Some(chunk);
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.disk.flush_blocking(self.cx)
    }
}

impl Seek for Stream<'_> {
    /// Goes anywhere from the first byte on, also beyond the end, and forgets the chunk.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] before the first byte.
    fn seek(&mut self, to: SeekFrom) -> Result<u64, Error> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.held = None;
        self.at = to.ok_or(Error::OutOfRange)?;
        Ok(self.at)
    }
}

#[cfg(test)]
#[path = "io_tests.rs"]
mod tests;
