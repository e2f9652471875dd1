//! A file's bytes through a volume: extents, holes, what is allocated and was never written, and an end.
//!
//! For a file system that keeps its map in memory and its own record of it elsewhere. Reads end where the file does, and see zeroes in holes and in what was
//! never written, whatever the device has there. A first write puts whole pages into the cache and only then calls them written (pattern 36). Task
//! context; writers of one file have their turns, readers do not wait for them.

use alloc::vec::Vec;

use undercroft_block::Error;
use undercroft_hal::Task;
use undercroft_hal::context::NotHardIrq;
use undercroft_hal::sync::Rank;

use crate::broken::{self, Hazard};
use crate::shim::{AtomicBool, Ordering, SpinLock};
use crate::table::PAGE;
use crate::volume::Volume;

/// Where a part of a file is: bytes of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: it reads as zeroes, and cannot be written before it is somewhere.
    Hole,
    /// There, but never written: it reads as zeroes.
    Unwritten(u64),
    /// There.
    Written(u64),
}

impl Place {
    /// The same, so many bytes on.
    const fn on(self, bytes: u64) -> Self {
        match self {
            Self::Hole => Self::Hole,
            Self::Unwritten(at) => Self::Unwritten(at + bytes),
            Self::Written(at) => Self::Written(at + bytes),
        }
    }
}

/// A part of a file. Parts follow each other without a gap, from byte 0 on; their lengths and places are multiples of [`PAGE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub len: u64,
    /// Where it is.
    pub place: Place,
}

struct Map {
    extents: Vec<Extent>,
    /// The file's end, in bytes: within its extents.
    size: u64,
}

/// A file.
pub struct File {
    volume: Volume,
    map: SpinLock<Map>,
    /// Somebody changes it.
    busy: AtomicBool,
}

impl File {
    /// A file of `size` bytes, by a handle of its own to the volume.
    ///
    /// # Errors
    /// [`Error::BadLength`] if the extents are not as [they must be](Extent) or end before the file, [`Error::OutOfRange`] if one is not in the volume,
    /// [`Error::NoMemory`].
    pub fn new(cx: &impl NotHardIrq, volume: Volume, extents: &[Extent], size: u64) -> Result<Self, Error> {
        let (page, end, mut mapped) = (PAGE as u64, volume.size(cx), 0u64);
        for extent in extents {
            mapped = mapped.checked_add(extent.len).ok_or(Error::BadLength)?;
            let whole = |bytes: u64| bytes.is_multiple_of(page);
            match extent.place {
                _ if extent.len == 0 || !whole(extent.len) => return Err(Error::BadLength),
                Place::Hole => {}
                Place::Unwritten(at) | Place::Written(at) if !whole(at) => return Err(Error::BadLength),
                Place::Unwritten(at) | Place::Written(at) => {
                    at.checked_add(extent.len).filter(|last| *last <= end).ok_or(Error::OutOfRange)?;
                }
            }
        }
        if size > mapped {
            return Err(Error::BadLength);
        }
        let map = Map { extents: copied(extents, 0)?, size };
        // Below a volume's lock, though they are never held together.
        Ok(Self { volume, map: SpinLock::new(Rank::new(6), map), busy: AtomicBool::new(false) })
    }

    /// Its bytes.
    pub fn size(&self, cx: &impl NotHardIrq) -> u64 {
        self.map.lock(cx).size
    }

    /// Reads from `at` on as far as the file goes: how many bytes that are.
    ///
    /// # Errors
    /// As [`Volume::read_blocking`].
    pub fn read(&self, cx: &Task, at: u64, into: &mut [u8]) -> Result<usize, Error> {
        let mut done = 0;
        while done < into.len() {
            let from = at.saturating_add(done as u64);
            let (left, place) = {
                let map = self.map.lock(cx);
                let end = if broken::is(Hazard::EndIgnored) { map.mapped() } else { map.size };
                let Some((len, place)) = map.at(from).filter(|_| from < end) else { return Ok(done) };
                (len.min(end - from), place)
            };
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(into.len() - done);
            let part = &mut into[done..done + len];
            match place {
                Place::Hole | Place::Unwritten(_) => part.fill(0),
                Place::Written(place) => self.volume.read_blocking(cx, place, part)?,
            }
            done += len;
        }
        Ok(done)
    }

    /// Writes from `at` on, and puts the file's end behind that if it was before. What is between the end and `at` reads as zeroes. Takes 4 KiB of
    /// stack.
    ///
    /// # Errors
    /// [`Error::NoSpace`] at a hole, or behind the last extent: a file system gives it room first. Otherwise as [`Volume::write_blocking`]; what is before
    /// the part that failed may be written, and the end is where it was.
    pub fn write(&self, cx: &Task, at: u64, from: &[u8]) -> Result<(), Error> {
        let end = at.checked_add(from.len() as u64).ok_or(Error::NoSpace)?;
        let _turn = self.turn(cx);
        let size = self.size(cx);
        let zeroes = [0; PAGE];
        let mut gap = size.min(at);
        while gap < at {
            // To the end of the page.
            let len = (PAGE as u64 - gap % PAGE as u64).min(at - gap);
            if matches!(self.place(cx, gap), Some(Place::Written(_))) {
                self.put(cx, gap, &zeroes[..len as usize])?;
            }
            gap += len;
        }
        let mut done = 0;
        while done < from.len() {
            let here = at + done as u64;
            let len = (PAGE - (here % PAGE as u64) as usize).min(from.len() - done);
            self.put(cx, here, &from[done..done + len])?;
            done += len;
        }
        let mut map = self.map.lock(cx);
        map.size = map.size.max(end);
        Ok(())
    }

    /// Makes durable what was written before this call, and says what may be recorded: extents and an end of which all that is called written is durable.
    ///
    /// # Errors
    /// As [`Volume::sync_blocking`]; [`Error::NoMemory`].
    pub fn sync(&self, cx: &Task) -> Result<(Vec<Extent>, u64), Error> {
        let turn = self.turn(cx);
        // Nobody changes the map in our turn; its memory is not copied under its lock.
        let (extents, size) = (self.extents(cx, 0)?, self.size(cx));
        drop(turn);
        self.volume.sync_all_blocking(cx)?;
        Ok((extents, size))
    }

    /// Changes the file's end, within its extents. What is cut off reads as zeroes if the end comes back.
    ///
    /// # Errors
    /// [`Error::NoSpace`] behind the last extent; otherwise as [`File::write`].
    pub fn set_size(&self, cx: &Task, size: u64) -> Result<(), Error> {
        if size > self.map.lock(cx).mapped() {
            return Err(Error::NoSpace);
        }
        if size > self.size(cx) {
            return self.write(cx, size, &[]);
        }
        let _turn = self.turn(cx);
        self.map.lock(cx).size = size;
        Ok(())
    }

    /// Writes a part of one page, within an extent, in the caller's turn.
    fn put(&self, cx: &Task, at: u64, from: &[u8]) -> Result<(), Error> {
        match self.place(cx, at) {
            None | Some(Place::Hole) => Err(Error::NoSpace),
            Some(Place::Written(place)) => self.volume.write_blocking(cx, place, from),
            Some(Place::Unwritten(place)) => {
                // The whole page: what the device has of it is nobody's, or somebody else's.
                let (offset, mut page) = ((at % PAGE as u64) as usize, [0; PAGE]);
                page[offset..offset + from.len()].copy_from_slice(from);
                let first = at - offset as u64;
                let extents = self.extents(cx, 2)?;
                if broken::is(Hazard::WrittenBefore) {
                    drop(self.replace(cx, written(extents, first)));
                    return self.volume.write_blocking(cx, place - offset as u64, &page);
                }
                self.volume.write_blocking(cx, place - offset as u64, &page)?;
                drop(self.replace(cx, written(extents, first)));
                Ok(())
            }
        }
    }

    fn place(&self, cx: &Task, at: u64) -> Option<Place> {
        self.map.lock(cx).at(at).map(|(_, place)| place)
    }

    /// The extents, with room for `more`; in the caller's turn.
    fn extents(&self, cx: &Task, more: usize) -> Result<Vec<Extent>, Error> {
        let count = self.map.lock(cx).extents.len();
        let mut extents = copied(&[], count + more)?;
        extents.extend_from_slice(&self.map.lock(cx).extents);
        Ok(extents)
    }

    fn replace(&self, cx: &Task, extents: Vec<Extent>) -> Vec<Extent> {
        core::mem::replace(&mut self.map.lock(cx).extents, extents)
    }

    fn turn(&self, cx: &Task) -> Turn<'_> {
        cx.wait_until(|| !self.busy.swap(true, Ordering::Acquire));
        Turn(&self.busy)
    }
}

impl core::fmt::Debug for File {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "File on {:?}", self.volume)
    }
}

/// Who changes a file.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
        // Writers of other CPUs look again.
        (0..undercroft_hal::cpu::count())
            .filter(|cpu| *cpu != undercroft_hal::cpu::current())
            .for_each(undercroft_hal::cpu::kick);
    }
}

impl Map {
    fn mapped(&self) -> u64 {
        self.extents.iter().map(|extent| extent.len).sum()
    }

    /// Where a byte is, and how many follow it there.
    fn at(&self, mut at: u64) -> Option<(u64, Place)> {
        for extent in &self.extents {
            if at < extent.len {
                return Some((extent.len - at, extent.place.on(at)));
            }
            at -= extent.len;
        }
        None
    }
}

/// A copy, and room for `more`.
fn copied(extents: &[Extent], more: usize) -> Result<Vec<Extent>, Error> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(extents.len() + more).map_err(|_| Error::NoMemory)?;
    copy.extend_from_slice(extents);
    Ok(copy)
}

/// The extents with one page, at `first`, written. There is room for two more.
fn written(mut extents: Vec<Extent>, first: u64) -> Vec<Extent> {
    let (mut start, mut at) = (0, 0);
    while at < extents.len() && first >= start + extents[at].len {
        start += extents[at].len;
        at += 1;
    }
    let Some(Extent { len, place: Place::Unwritten(place) }) = extents.get(at).copied() else { return extents };
    let (before, page) = (first - start, PAGE as u64);
    extents[at] = Extent { len: page, place: Place::Written(place + before) };
    if before + page < len {
        let rest = Extent { len: len - before - page, place: Place::Unwritten(place + before + page) };
        extents.insert(at + 1, rest);
    }
    if before > 0 {
        extents.insert(at, Extent { len: before, place: Place::Unwritten(place) });
        at += 1;
    }
    // It may go on what is before it.
    let before = at.checked_sub(1).map(|before| extents[before]);
    if let Some(Extent { len: last, place: Place::Written(there) }) = before
        && Place::Written(there + last) == extents[at].place
    {
        extents[at - 1].len += page;
        extents.remove(at);
    }
    extents
}
