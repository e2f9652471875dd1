//! The guest as the host reaches it: its memory, and the time. The one thing that a user of the model brings.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::atomic::{Ordering, fence};

/// An access to something that is no memory of the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadGpa {
    /// The first address.
    pub gpa: u64,
    /// Bytes.
    pub len: usize,
}

impl fmt::Display for BadGpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:#x} are no memory of the guest's", self.len, self.gpa)
    }
}

/// A guest's physical memory, and the time. What the provided methods do is right where host and guest take turns; where they run at a time,
/// the words need atomic accesses of their own.
pub trait Guest {
    /// Reads memory.
    ///
    /// # Errors
    /// [`BadGpa`].
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), BadGpa>;

    /// Writes memory.
    ///
    /// # Errors
    /// [`BadGpa`], with nothing written.
    fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), BadGpa>;

    /// The time since the machine began, in units of 100 ns.
    fn now(&self) -> u64;

    /// Reads an aligned word, and no later access comes before it.
    ///
    /// # Errors
    /// [`BadGpa`].
    fn load(&self, gpa: u64) -> Result<u32, BadGpa> {
        let mut word = [0; 4];
        self.read(gpa, &mut word)?;
        fence(Ordering::Acquire);
        Ok(u32::from_le_bytes(word))
    }

    /// Writes an aligned word, and no earlier access comes after it.
    ///
    /// # Errors
    /// [`BadGpa`].
    fn store(&self, gpa: u64, word: u32) -> Result<(), BadGpa> {
        fence(Ordering::Release);
        self.write(gpa, &word.to_le_bytes())
    }

    /// Sets bits of an aligned word at once. Returns what it was.
    ///
    /// # Errors
    /// [`BadGpa`].
    fn fetch_or(&self, gpa: u64, bits: u32) -> Result<u32, BadGpa> {
        let old = self.load(gpa)?;
        self.store(gpa, old | bits)?;
        Ok(old)
    }
}

/// Memory from address 0 and a clock that a test moves by hand.
#[derive(Debug)]
pub struct Flat {
    bytes: RefCell<Vec<u8>>,
    now: Cell<u64>,
}

impl Flat {
    /// `len` zeros.
    pub fn new(len: usize) -> Self {
        Self { bytes: RefCell::new(vec![0; len]), now: Cell::new(0) }
    }

    /// Lets time pass, in units of 100 ns.
    pub fn advance(&self, units: u64) {
        self.now.set(self.now.get() + units);
    }
}

impl Guest for Flat {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), BadGpa> {
        let bytes = self.bytes.borrow();
        let end = (gpa as usize).checked_add(into.len()).filter(|end| *end <= bytes.len());
        let end = end.ok_or(BadGpa { gpa, len: into.len() })?;
        into.copy_from_slice(&bytes[gpa as usize..end]);
        Ok(())
    }

    fn write(&self, gpa: u64, from: &[u8]) -> Result<(), BadGpa> {
        let mut bytes = self.bytes.borrow_mut();
        let end = (gpa as usize).checked_add(from.len()).filter(|end| *end <= bytes.len());
        let end = end.ok_or(BadGpa { gpa, len: from.len() })?;
        bytes[gpa as usize..end].copy_from_slice(from);
        Ok(())
    }

    fn now(&self) -> u64 {
        self.now.get()
    }
}

/// A little-endian number in what the guest wrote; zeros behind its end.
fn le(bytes: &[u8], at: usize, len: usize) -> u64 {
    (0..len).rev().fold(0, |value, byte| value << 8 | u64::from(bytes.get(at + byte).copied().unwrap_or(0)))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    le(bytes, at, 2) as u16
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    le(bytes, at, 4) as u32
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    le(bytes, at, 8)
}
