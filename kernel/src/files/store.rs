//! What the image writes to a FAT file system: a directory of files that follow from the seed, made, overwritten, cut, renamed and removed.
//! `docs/console-protocol.md` says what there is in the end. Task context.

use alloc::format;
use alloc::string::String;

use axfatfs::{Error as FatError, Seek, SeekFrom, Write};

use super::{Error, Mounted};
use crate::pattern;

/// The directory.
pub(crate) const DIRECTORY: &str = "Written by the image";
/// Sizes of the files that are made.
const SIZES: [usize; 9] = [0, 1, 511, 512, 4096, 4097, 10_000, 65_537, 100_003];
/// Of those: removed, cut to the half, renamed, and continued to twice its size.
const REMOVED: usize = 2;
const CUT: usize = 6;
const RENAMED: usize = 7;
const CONTINUED: usize = 8;

/// A file in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) path: String,
    pub(crate) bytes: usize,
    /// Of its pattern.
    pub(crate) seed: u64,
}

/// What there is in the end.
pub(crate) fn stored(seed: u64) -> impl Iterator<Item = Stored> {
    SIZES.into_iter().enumerate().filter(|(at, _)| *at != REMOVED).map(move |(at, size)| {
        let bytes = match at {
            CUT => size / 2,
            CONTINUED => size * 2,
            _ => size,
        };
        Stored { path: format!("{DIRECTORY}/{}", last_name(at)), bytes, seed: seed.wrapping_add(at as u64 + 1) }
    })
}

fn name(at: usize) -> String {
    format!("File number {at}.pattern")
}

fn last_name(at: usize) -> String {
    if at == RENAMED { String::from("RENAMED.BIN") } else { name(at) }
}

/// Bytes of a file's pattern, from a multiple of 8 on.
fn bytes(seed: u64, at: usize, from: usize, into: &mut [u8]) {
    pattern::fill(into, seed.wrapping_add(at as u64 + 1), from as u64);
}

/// Makes the files.
pub(crate) fn store(mounted: &Mounted, seed: u64) -> Result<(), Error> {
    let Mounted::Fat(fat) = mounted else { return Err(Error::Unsupported) };
    fat.change(|root| root.create_dir(DIRECTORY).map(drop))?;
    let mut buffer = [0; 4096];
    for (at, size) in SIZES.into_iter().enumerate() {
        fat.change(|root| {
            let mut file = root.open_dir(DIRECTORY)?.create_file(&name(at))?;
            // One is written over: with another pattern first.
            for seed in [seed ^ 1, seed].into_iter().skip(usize::from(at % 2 == 0)) {
                file.seek(SeekFrom::Start(0))?;
                write(&mut file, seed, at, 0..size, &mut buffer)?;
            }
            file.flush()
        })?;
    }
    fat.change(|root| root.open_dir(DIRECTORY)?.remove(&name(REMOVED)))?;
    fat.change(|root| {
        let mut file = root.open_dir(DIRECTORY)?.open_file(&name(CUT))?;
        file.seek(SeekFrom::Start(SIZES[CUT] as u64 / 2))?;
        file.truncate()?;
        file.flush()
    })?;
    fat.change(|root| {
        let directory = root.open_dir(DIRECTORY)?;
        directory.rename(&name(RENAMED), &directory, &last_name(RENAMED))
    })?;
    fat.change(|root| {
        let mut file = root.open_dir(DIRECTORY)?.open_file(&name(CONTINUED))?;
        file.seek(SeekFrom::End(0))?;
        write(&mut file, seed, CONTINUED, SIZES[CONTINUED]..2 * SIZES[CONTINUED], &mut buffer)?;
        file.flush()
    })
}

/// Writes a range of a file's pattern, in pieces that end nowhere in particular.
fn write<W: Write<Error = FatError<Error>>>(
    file: &mut W,
    seed: u64,
    at: usize,
    range: core::ops::Range<usize>,
    buffer: &mut [u8; 4096],
) -> Result<(), FatError<Error>> {
    let mut from = range.start;
    while from < range.end {
        // The pattern is of words: what comes before this byte in its word is made, and left out.
        let skip = from % 8;
        let len = (buffer.len() - 96 - skip).min(range.end - from);
        bytes(seed, at, from - skip, &mut buffer[..skip + len]);
        file.write_all(&buffer[skip..skip + len])?;
        from += len;
    }
    Ok(())
}

/// Whether a file system holds what was stored: the first file that is not so.
pub(crate) fn find(mounted: &Mounted, seed: u64) -> Result<(), (String, Option<Error>)> {
    let listed = mounted.list(DIRECTORY).map_err(|error| (String::from(DIRECTORY), Some(error)))?;
    for file in stored(seed) {
        let (mut at, mut holds) = (0_usize, true);
        let read = mounted.read(&file.path, |bytes| {
            holds &= is_pattern(bytes, file.seed, at);
            at += bytes.len();
        });
        match read {
            Err(error) => return Err((file.path, Some(error))),
            Ok(bytes) if !holds || bytes != file.bytes as u64 => return Err((file.path, None)),
            Ok(_) => {}
        }
    }
    // No more than those.
    if listed.len() == SIZES.len() - 1 { Ok(()) } else { Err((String::from(DIRECTORY), None)) }
}

/// Whether bytes that lie anywhere in a file are the pattern's.
fn is_pattern(bytes: &[u8], seed: u64, at: usize) -> bool {
    let mut wanted = [0; 8];
    bytes.iter().enumerate().all(|(i, byte)| {
        let place = at + i;
        if i == 0 || place.is_multiple_of(8) {
            pattern::fill(&mut wanted, seed, (place - place % 8) as u64);
        }
        *byte == wanted[place % 8]
    })
}
