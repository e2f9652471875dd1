//! Why something could not be done with a file. Any context.

use core::fmt;

use undercroft_block::Error as DiskError;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The disk, or the cache before it.
    Disk(DiskError),
    /// The file system contradicts itself: its disk, or whoever wrote it, is at fault.
    Corrupt,
    /// It is more than is read here: a chain that goes round, say, or a file larger than its file system.
    TooMuch,
    /// The file system, or this of it, is of a kind that is not read.
    Unsupported,
    /// There is no such file or directory.
    NotFound,
    /// It is a directory.
    IsDirectory,
    /// It is no directory.
    NotDirectory,
    /// It exists already, or is in the way.
    Exists,
    /// There is no room.
    NoSpace,
    /// The name cannot be used.
    BadName,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk(error) => return error.fmt(f),
            Self::Corrupt => "the file system contradicts itself",
            Self::TooMuch => "the file system asks for more than its size allows",
            Self::Unsupported => "that kind is not read here",
            Self::NotFound => "there is no such file or directory",
            Self::IsDirectory => "it is a directory",
            Self::NotDirectory => "it is no directory",
            Self::Exists => "it exists already",
            Self::NoSpace => "there is no room",
            Self::BadName => "the name cannot be used",
        })
    }
}

impl core::error::Error for Error {}

impl From<DiskError> for Error {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}
