//! ext2, ext3 and ext4, to be read: the crate `ext4-view`. Task context.
//!
//! Two numbers of the disk's make it allocate without bound, and there is no unwinding here: the number of block groups, which is looked at
//! before it is mounted, and the length of a symbolic link, of which none is followed.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use ext4_view::{Ext4, Ext4Error, Ext4Read, FileType, Path, PathBuf};

use super::{Error, Item, Part};

/// Block groups of a file system that is mounted: 8 TiB, as mkfs makes it.
const MOST_GROUPS: u64 = 1 << 16;
const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;
/// A file is read by so much at a time.
const CHUNK: usize = 4096;

struct Reader(Part);

impl Ext4Read for Reader {
    fn read(&mut self, start: u64, into: &mut [u8]) -> Result<(), Box<dyn core::error::Error + Send + Sync>> {
        Ok(self.0.read(start, into)?)
    }
}

/// A mounted file system.
pub(crate) struct Mounted {
    system: Ext4,
    part: Part,
}

/// Whether there is one in a partition.
pub(crate) fn is_there(part: &Part) -> Result<bool, Error> {
    let mut magic = [0; 2];
    if part.bytes() < 2 * SUPERBLOCK {
        return Ok(false);
    }
    part.read(SUPERBLOCK + 56, &mut magic)?;
    Ok(u16::from_le_bytes(magic) == MAGIC)
}

/// Looks at the numbers by which memory is allocated (kernel documentation of ext4, "The Super Block").
fn check(part: &Part) -> Result<(), Error> {
    let mut bytes = [0; 1024];
    part.read(SUPERBLOCK, &mut bytes)?;
    let word = |at: usize| bytes[at..at + 4].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
    let (log_size, per_group) = (word(24), word(32));
    let high = if word(96) & 0x80 != 0 { word(336) } else { 0 };
    let blocks = high << 32 | word(4);
    if log_size > 6 || per_group == 0 {
        return Err(Error::Corrupt);
    }
    if blocks.checked_mul(1024 << log_size).is_none_or(|bytes| bytes > part.bytes()) {
        return Err(Error::Corrupt);
    }
    if blocks.div_ceil(per_group) > MOST_GROUPS { Err(Error::TooMuch) } else { Ok(()) }
}

impl Mounted {
    pub(crate) fn mount(part: Part) -> Result<Self, Error> {
        part.begin();
        check(&part)?;
        let system = Ext4::load(Box::new(Reader(part.clone()))).map_err(|error| why(&part, &error))?;
        Ok(Self { system, part })
    }

    fn why(&self, error: &Ext4Error) -> Error {
        why(&self.part, error)
    }

    /// A path none of whose parts is a symbolic link.
    fn path(&self, path: &str) -> Result<PathBuf, Error> {
        let mut so_far = PathBuf::new("/");
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let next = Path::try_from(name).map_err(|_| Error::BadName)?;
            so_far.push(next);
            let seen = self.system.symlink_metadata(&so_far).map_err(|error| self.why(&error))?;
            if seen.is_symlink() {
                return Err(Error::Unsupported);
            }
        }
        Ok(so_far)
    }

    /// What is in a directory.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<Item>, Error> {
        self.part.begin();
        let path = self.path(path)?;
        let mut items = Vec::new();
        for entry in self.system.read_dir(&path).map_err(|error| self.why(&error))? {
            let entry = entry.map_err(|error| self.why(&error))?;
            let name = String::from_utf8_lossy(entry.file_name().as_ref()).into_owned();
            if name == "." || name == ".." {
                continue;
            }
            let kind = entry.file_type().map_err(|error| self.why(&error))?;
            // Not by the entry itself: that follows links.
            let seen = self.system.symlink_metadata(&entry.path()).map_err(|error| self.why(&error))?;
            let file = kind == FileType::Regular && !seen.is_dir() && !seen.is_symlink();
            items.push(Item { name, bytes: seen.len(), directory: seen.is_dir(), other: !seen.is_dir() && !file });
        }
        Ok(items)
    }

    /// Reads a file.
    pub(crate) fn read(&self, path: &str, mut with: impl FnMut(&[u8])) -> Result<u64, Error> {
        self.part.begin();
        let path = self.path(path)?;
        let mut file = self.system.open(&path).map_err(|error| self.why(&error))?;
        if file.metadata().len() > self.part.bytes() {
            return Err(Error::TooMuch);
        }
        let (mut bytes, mut total) = ([0; CHUNK], 0);
        loop {
            match file.read_bytes(&mut bytes).map_err(|error| self.why(&error))? {
                0 => return Ok(total),
                count => {
                    with(&bytes[..count]);
                    total += count as u64;
                }
            }
        }
    }
}

fn why(part: &Part, error: &Ext4Error) -> Error {
    if part.is_exhausted() {
        return Error::TooMuch;
    }
    match error {
        Ext4Error::NotFound => Error::NotFound,
        Ext4Error::IsADirectory => Error::IsDirectory,
        Ext4Error::NotADirectory => Error::NotDirectory,
        Ext4Error::MalformedPath | Ext4Error::PathTooLong | Ext4Error::NotAbsolute => Error::BadName,
        Ext4Error::Io(_) => part.failed().map_or(Error::Corrupt, Error::Disk),
        Ext4Error::Incompatible(_) | Ext4Error::IsASpecialFile | Ext4Error::Encrypted => Error::Unsupported,
        Ext4Error::FileTooLarge | Ext4Error::TooManySymlinks => Error::TooMuch,
        _ => Error::Corrupt,
    }
}
