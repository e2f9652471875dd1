//! FAT12, FAT16 and FAT32, to be read and written: the crate `axfatfs`, which is `fatfs` without the standard library. Task context.
//!
//! Its sums go round instead of ending the image where a disk's numbers are too large; where they lead is checked in [`Part`]. The boot sector is
//! looked at before.

use alloc::vec::Vec;

use axfatfs::{
    Dir, FileSystem, FsOptions, IoBase, IoError, LossyOemCpConverter, NullTimeProvider, Read, Seek, SeekFrom, Write,
};

use super::{Error, Item, Part};

/// A file is read by so much at a time.
const CHUNK: usize = 4096;

/// A position in a partition.
pub(crate) struct Io {
    part: Part,
    at: u64,
}

impl IoError for Error {
    fn is_interrupted(&self) -> bool {
        false
    }

    fn new_unexpected_eof_error() -> Self {
        Self::Corrupt
    }

    fn new_write_zero_error() -> Self {
        Self::Corrupt
    }
}

impl IoBase for Io {
    type Error = Error;
}

impl Read for Io {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        self.part.read(self.at, into)?;
        self.at += into.len() as u64;
        Ok(into.len())
    }
}

impl Write for Io {
    fn write(&mut self, from: &[u8]) -> Result<usize, Error> {
        self.part.write(self.at, from)?;
        self.at += from.len() as u64;
        Ok(from.len())
    }

    /// Nothing is held here; what is below is synced when all is done.
    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl Seek for Io {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, Error> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.part.bytes().checked_add_signed(by),
        };
        self.at = to.ok_or(Error::Corrupt)?;
        Ok(self.at)
    }
}

type System = FileSystem<Io, NullTimeProvider, LossyOemCpConverter>;
type Directory<'a> = Dir<'a, Io, NullTimeProvider, LossyOemCpConverter>;

/// A mounted file system.
pub(crate) struct Mounted {
    system: System,
    part: Part,
}

/// Whether there is one in a partition: a boot sector that makes sense.
pub(crate) fn is_there(part: &Part) -> Result<bool, Error> {
    let mut bytes = [0; 512];
    if part.bytes() < bytes.len() as u64 {
        return Ok(false);
    }
    part.read(0, &mut bytes)?;
    Ok(bytes[510..] == [0x55, 0xaa] && matches!(bytes[0], 0xeb | 0xe9) && check(part, &bytes).is_ok())
}

/// Looks at a boot sector ("Microsoft Extensible Firmware Initiative FAT32 File System Specification", 1.03): its parts lie one behind the
/// other in the partition, and a root directory that is a chain begins in the data.
fn check(part: &Part, bytes: &[u8; 512]) -> Result<(), Error> {
    let half = |at: usize| u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let word = |at: usize| half(at) | half(at + 2) << 16;
    let (sector, per_cluster, fats) = (half(11), u64::from(bytes[13]), u64::from(bytes[16]));
    let is_32 = half(22) == 0;
    let per_fat = if is_32 { word(36) } else { half(22) };
    let all = if half(19) != 0 { half(19) } else { word(32) };
    let sane = sector.is_power_of_two() && (512..=4096).contains(&sector) && per_cluster.is_power_of_two();
    if !sane || fats == 0 || per_fat == 0 || all * sector > part.bytes() {
        return Err(Error::Corrupt);
    }
    let root = (half(17) * 32).div_ceil(sector);
    let data = half(14) + fats * per_fat + root;
    let clusters = all.checked_sub(data).ok_or(Error::Corrupt)? / per_cluster;
    let chain = if is_32 { (2..clusters + 2).contains(&word(44)) } else { half(17) > 0 };
    if clusters > 0 && chain { Ok(()) } else { Err(Error::Corrupt) }
}

impl Mounted {
    pub(crate) fn mount(part: Part) -> Result<Self, Error> {
        part.begin();
        let mut bytes = [0; 512];
        part.read(0, &mut bytes)?;
        check(&part, &bytes)?;
        let options = FsOptions::new().time_provider(NullTimeProvider::new());
        let system = System::new(Io { part: part.clone(), at: 0 }, options).map_err(|error| why(&part, error))?;
        Ok(Self { system, part })
    }

    /// What is in a directory.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<Item>, Error> {
        self.part.begin();
        self.list_now(path).map_err(|error| why(&self.part, error))
    }

    fn list_now(&self, path: &str) -> Result<Vec<Item>, axfatfs::Error<Error>> {
        let root = self.system.root_dir();
        let directory = if path.trim_matches('/').is_empty() { root } else { root.open_dir(path)? };
        let mut items = Vec::new();
        for entry in directory.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if name != "." && name != ".." {
                items.push(Item { name, bytes: entry.len(), directory: entry.is_dir(), other: false });
            }
        }
        Ok(items)
    }

    /// Reads a file.
    pub(crate) fn read(&self, path: &str, with: impl FnMut(&[u8])) -> Result<u64, Error> {
        self.part.begin();
        self.read_now(path, with).map_err(|error| why(&self.part, error))
    }

    fn read_now(&self, path: &str, mut with: impl FnMut(&[u8])) -> Result<u64, axfatfs::Error<Error>> {
        let mut file = self.system.root_dir().open_file(path)?;
        let (mut bytes, mut total) = ([0; CHUNK], 0);
        loop {
            match file.read(&mut bytes)? {
                0 => return Ok(total),
                count => {
                    with(&bytes[..count]);
                    total += count as u64;
                }
            }
        }
    }

    /// Does something with the root directory that may change the file system.
    pub(crate) fn change<R>(
        &self,
        change: impl FnOnce(&Directory<'_>) -> Result<R, axfatfs::Error<Error>>,
    ) -> Result<R, Error> {
        self.part.begin();
        change(&self.system.root_dir()).map_err(|error| why(&self.part, error))
    }

    /// Writes what the file system still holds, and makes all of it durable.
    pub(crate) fn unmount(self) -> Result<(), Error> {
        self.part.begin();
        let part = self.part.clone();
        self.system.unmount().map_err(|error| why(&part, error))?;
        part.sync()
    }
}

fn why(part: &Part, error: axfatfs::Error<Error>) -> Error {
    if part.is_exhausted() {
        return Error::TooMuch;
    }
    match error {
        axfatfs::Error::Io(error) => error,
        axfatfs::Error::NotFound => Error::NotFound,
        // What was asked for a file is a directory, or the other way round.
        axfatfs::Error::InvalidInput => Error::NotDirectory,
        axfatfs::Error::AlreadyExists | axfatfs::Error::DirectoryIsNotEmpty => Error::Exists,
        axfatfs::Error::NotEnoughSpace => Error::NoSpace,
        axfatfs::Error::InvalidFileNameLength | axfatfs::Error::UnsupportedFileNameCharacter => Error::BadName,
        _ => Error::Corrupt,
    }
}
