//! An in-memory disk with a durable image and a volatile write cache: what a device stores, and what a test checks against.
//!
//! Sparse, so that a disk may be larger than any memory. A disk is a shared handle: it outlives the device and the machine that it was in, so that a
//! test can cut the power and look at what is left. Addresses are in sectors of 512 bytes, whatever block size a device shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Random;

/// Bytes in a sector.
pub const SECTOR: usize = 512;

type Sector = [u8; SECTOR];

/// Why a disk operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskError {
    /// The range ends beyond the disk.
    OutOfRange,
    /// This sector cannot be read or written.
    Medium(u64),
    /// The disk is write protected.
    ReadOnly,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange => f.write_str("beyond the end of the disk"),
            Self::Medium(sector) => write!(f, "sector {sector} is bad"),
            Self::ReadOnly => f.write_str("the disk is write protected"),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    sectors: u64,
    /// What unwritten sectors hold: zeros, or a pattern made from this seed.
    pattern: Option<u64>,
    read_only: bool,
    write_back: bool,
    durable: BTreeMap<u64, Box<Sector>>,
    /// What is durable lies here instead.
    file: Option<File>,
    /// Every version written since the last flush, oldest first: a power cut may leave any of them.
    cache: BTreeMap<u64, Vec<Sector>>,
    bad: BTreeSet<u64>,
    flushes: u64,
}

impl State {
    /// Makes a sector's content durable. A file that does not take it makes the sector a bad one.
    fn keep(&mut self, sector: u64, content: &Sector) {
        match &self.file {
            Some(file) if file.write_all_at(content, sector * SECTOR as u64).is_err() => {
                self.bad.insert(sector);
            }
            Some(_) => {}
            None => {
                self.durable.insert(sector, Box::new(*content));
            }
        }
    }

    fn durable(&mut self, sector: u64) -> Sector {
        if let Some(file) = &self.file {
            let mut content = [0; SECTOR];
            if file.read_exact_at(&mut content, sector * SECTOR as u64).is_err() {
                self.bad.insert(sector);
            }
            return content;
        }
        match (self.durable.get(&sector), self.pattern) {
            (Some(content), _) => **content,
            (None, Some(seed)) => Disk::pattern(seed, sector),
            (None, None) => [0; SECTOR],
        }
    }

    /// Reads from the file at once, where nothing lies between it and the reader.
    fn read_through(&self, sector: u64, into: &mut [u8]) -> bool {
        let range = sector..sector + (into.len() / SECTOR) as u64;
        let plain = self.bad.is_empty() && self.cache.range(range).next().is_none();
        self.file.as_ref().is_some_and(|file| plain && file.read_exact_at(into, sector * SECTOR as u64).is_ok())
    }
}

/// A disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Mutex<State>>);

impl Disk {
    /// A disk of `sectors` zeroed sectors, with its write cache on.
    pub fn new(sectors: u64) -> Self {
        Self(Arc::new(Mutex::new(State { sectors, write_back: true, ..State::default() })))
    }

    /// A disk whose durable image is a file, of as many whole sectors as that has, with its write cache on. What is in the cache is what a
    /// power cut would take.
    ///
    /// # Errors
    /// What the file's size could not be asked for.
    pub fn on_file(file: File) -> io::Result<Self> {
        let disk = Self::new(file.metadata()?.len() / SECTOR as u64);
        disk.state().file = Some(file);
        Ok(disk)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic of another thread leaves is whole: no change is in two steps.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A disk in which each unwritten sector holds [`Disk::pattern`] of `seed` and its number: reads can be checked without storing anything.
    pub fn patterned(sectors: u64, seed: u64) -> Self {
        let disk = Self::new(sectors);
        disk.state().pattern = Some(seed);
        disk
    }

    /// The content of an unwritten sector of a [`Disk::patterned`] disk.
    pub fn pattern(seed: u64, sector: u64) -> [u8; SECTOR] {
        let mut random = Random::new(seed ^ sector.wrapping_mul(0xd6e8_feb8_6659_fd93));
        let mut out = [0; SECTOR];
        for word in out.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next_u64().to_le_bytes());
        }
        out
    }

    /// Sectors.
    pub fn sectors(&self) -> u64 {
        self.state().sectors
    }

    /// Makes the disk larger or smaller. What lay beyond the new end is gone.
    pub fn resize(&self, sectors: u64) {
        let mut state = self.state();
        state.sectors = sectors;
        state.durable.split_off(&sectors);
        state.cache.split_off(&sectors);
    }

    /// Write protects the disk, or not.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().read_only = read_only;
    }

    /// Whether the disk is write protected.
    pub fn read_only(&self) -> bool {
        self.state().read_only
    }

    /// Turns the write cache on or off; turning it off writes it out.
    pub fn set_write_back(&self, write_back: bool) {
        self.state().write_back = write_back;
        if !write_back {
            self.write_out();
        }
    }

    /// Turns the write cache off and leaves in it what is in it, until a flush.
    pub fn stop_caching(&self) {
        self.state().write_back = false;
    }

    /// Whether the write cache is on.
    pub fn write_back(&self) -> bool {
        self.state().write_back
    }

    /// Makes a sector bad: reading or writing it fails.
    pub fn set_bad(&self, sector: u64) {
        self.state().bad.insert(sector);
    }

    /// Mends a sector.
    pub fn set_good(&self, sector: u64) {
        self.state().bad.remove(&sector);
    }

    /// Reads whole sectors.
    ///
    /// # Errors
    /// [`DiskError`]; sectors before a bad one have been read.
    pub fn read(&self, sector: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.check(sector, into.len(), false)?;
        if self.state().read_through(sector, into) {
            return Ok(());
        }
        for (at, chunk) in into.chunks_mut(SECTOR).enumerate() {
            let at = sector + at as u64;
            self.good(at)?;
            chunk.copy_from_slice(&self.read_sector(at)[..chunk.len()]);
            // A file that cannot be read shows only now.
            self.good(at)?;
        }
        Ok(())
    }

    /// Writes whole sectors: to the cache if it is on, else to the durable image.
    ///
    /// # Errors
    /// [`DiskError`]; sectors before a bad one have been written.
    pub fn write(&self, sector: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.check(sector, bytes.len(), true)?;
        for (at, chunk) in bytes.chunks_exact(SECTOR).enumerate() {
            let at = sector + at as u64;
            self.good(at)?;
            let mut content = [0; SECTOR];
            content.copy_from_slice(chunk);
            let mut state = self.state();
            if state.write_back {
                let on_file = state.file.is_some();
                let versions = state.cache.entry(at).or_default();
                // Nobody cuts the power of a disk that lies in a file.
                if on_file {
                    versions.clear();
                }
                versions.push(content);
            } else {
                state.cache.remove(&at);
                state.keep(at, &content);
            }
        }
        Ok(())
    }

    /// Writes whole sectors to the durable image, past the cache (forced unit access).
    ///
    /// # Errors
    /// As [`Disk::write`].
    pub fn write_durable(&self, sector: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.write(sector, bytes)?;
        let state = &mut *self.state();
        for at in sector..sector + (bytes.len() / SECTOR) as u64 {
            let versions = state.cache.remove(&at).unwrap_or_default();
            versions.last().into_iter().for_each(|last| state.keep(at, last));
        }
        Ok(())
    }

    /// Fills sectors with zeros (write zeroes, or a discard that zeroes).
    ///
    /// # Errors
    /// As [`Disk::write`].
    pub fn zero(&self, sector: u64, sectors: u64) -> Result<(), DiskError> {
        let end = sector.checked_add(sectors).ok_or(DiskError::OutOfRange)?;
        if end > self.sectors() {
            return Err(DiskError::OutOfRange);
        }
        (sector..end).try_for_each(|at| self.write(at, &[0; SECTOR]))
    }

    /// Makes everything written so far durable.
    pub fn flush(&self) {
        self.state().flushes += 1;
        self.write_out();
    }

    fn write_out(&self) {
        let state = &mut *self.state();
        for (sector, versions) in std::mem::take(&mut state.cache) {
            versions.last().into_iter().for_each(|last| state.keep(sector, last));
        }
    }

    /// How many flushes there were.
    pub fn flushes(&self) -> u64 {
        self.state().flushes
    }

    /// How many sectors have content that a power cut could take.
    pub fn volatile_sectors(&self) -> usize {
        self.state().cache.len()
    }

    /// The power goes: each cached sector is left as it was before, or as any of the versions written since the last flush.
    pub fn power_cut(&self, random: &mut Random) {
        let state = &mut *self.state();
        for (sector, versions) in std::mem::take(&mut state.cache) {
            let kept = random.below(versions.len() + 1);
            if kept < versions.len() {
                state.keep(sector, &versions[kept]);
            }
        }
    }

    /// A sector as a reader would see it now.
    pub fn read_sector(&self, sector: u64) -> [u8; SECTOR] {
        let cached = self.state().cache.get(&sector).and_then(|versions| versions.last().copied());
        cached.unwrap_or_else(|| self.durable_sector(sector))
    }

    /// A sector as the durable image holds it.
    pub fn durable_sector(&self, sector: u64) -> [u8; SECTOR] {
        self.state().durable(sector)
    }

    fn good(&self, sector: u64) -> Result<(), DiskError> {
        if self.state().bad.contains(&sector) { Err(DiskError::Medium(sector)) } else { Ok(()) }
    }

    fn check(&self, sector: u64, bytes: usize, writes: bool) -> Result<(), DiskError> {
        let state = self.state();
        if writes && state.read_only {
            return Err(DiskError::ReadOnly);
        }
        let end = sector.checked_add((bytes / SECTOR) as u64);
        if !bytes.is_multiple_of(SECTOR) || end.is_none_or(|end| end > state.sectors) {
            return Err(DiskError::OutOfRange);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushed_data_survives_a_power_cut_and_unflushed_data_may_not() {
        let mut lost = 0;
        let mut kept = 0;
        for seed in 0..64 {
            let disk = Disk::new(8);
            disk.write(1, &[1; SECTOR]).unwrap();
            disk.flush();
            disk.write(1, &[2; SECTOR]).unwrap();
            disk.write(1, &[3; SECTOR]).unwrap();
            assert_eq!(disk.read_sector(1), [3; SECTOR]);
            disk.power_cut(&mut Random::new(seed));
            match disk.read_sector(1)[0] {
                1 => lost += 1,
                2 | 3 => kept += 1,
                other => panic!("{other} was never written"),
            }
            assert_eq!(disk.volatile_sectors(), 0);
        }
        assert!(lost > 0 && kept > 0);
    }

    #[test]
    fn a_file_gets_what_was_flushed() {
        let path = std::env::temp_dir().join(format!("undercroft-disk-{}", std::process::id()));
        std::fs::write(&path, [7; 3 * SECTOR + 1]).unwrap();
        let disk = Disk::on_file(File::options().read(true).write(true).open(&path).unwrap()).unwrap();
        assert_eq!((disk.sectors(), disk.read_sector(2)), (3, [7; SECTOR]));
        disk.write(1, &[9; SECTOR]).unwrap();
        disk.write(1, &[8; SECTOR]).unwrap();
        let mut all = [0; 3 * SECTOR];
        disk.read(0, &mut all).unwrap();
        assert_eq!((all[SECTOR - 1], all[SECTOR], all[2 * SECTOR]), (7, 8, 7));
        assert_eq!(std::fs::read(&path).unwrap()[SECTOR], 7);
        disk.flush();
        assert_eq!(std::fs::read(&path).unwrap()[SECTOR], 8);
        // Shorter than it was: the medium has an error there.
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert_eq!(disk.read(0, &mut all), Err(DiskError::Medium(0)));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn write_through_is_durable_at_once() {
        let disk = Disk::new(8);
        disk.set_write_back(false);
        disk.write(7, &[9; SECTOR]).unwrap();
        assert_eq!(disk.durable_sector(7), [9; SECTOR]);
    }

    #[test]
    fn refuses_what_it_must() {
        let disk = Disk::patterned(8, 5);
        assert_eq!(disk.write(8, &[0; SECTOR]), Err(DiskError::OutOfRange));
        assert_eq!(disk.write(u64::MAX, &[0; SECTOR]), Err(DiskError::OutOfRange));
        assert_eq!(disk.read(7, &mut [0; 1024]), Err(DiskError::OutOfRange));
        disk.set_bad(3);
        assert_eq!(disk.read(2, &mut [0; 1024]), Err(DiskError::Medium(3)));
        disk.set_read_only(true);
        assert_eq!(disk.write(0, &[0; SECTOR]), Err(DiskError::ReadOnly));
        assert_eq!(disk.read_sector(4), Disk::pattern(5, 4));
    }
}
