//! Reads and writes of memory that may fault when it is touched: a process's (X31).
//!
//! Slices are memory that cannot fault, and are copied under the volume's lock. What may fault is never touched there: its bytes go through a
//! page on the task's stack, and its owner is called with no lock held.

use undercroft_block::Error;
use undercroft_hal::Task;
use undercroft_hal::sync::assert_unlocked;

use super::Volume;
use crate::broken::{self, Hazard};
use crate::table::PAGE;

/// Memory that may fault when it is touched. Both functions are called with no lock held, and may wait, fault and use any volume, this one too.
pub trait UserMemory {
    /// Copies `bytes` to `at`, an offset in the memory.
    ///
    /// # Errors
    /// Whatever the read is to fail with: it ends there.
    fn put(&mut self, cx: &Task, at: usize, bytes: &[u8]) -> Result<(), Error>;

    /// Copies from `at`, an offset in the memory, all that `bytes` has room for.
    ///
    /// # Errors
    /// Whatever the write is to fail with: it ends there.
    fn get(&mut self, cx: &Task, at: usize, bytes: &mut [u8]) -> Result<(), Error>;
}

impl Volume {
    /// Reads `len` bytes from `start` on into memory that may fault, and waits. Takes 4 KiB of stack.
    ///
    /// # Errors
    /// As [`Volume::read_blocking`], or what the memory failed with.
    pub fn read_to_user(&self, cx: &Task, start: u64, len: usize, user: &mut impl UserMemory) -> Result<(), Error> {
        self.range(cx, start, len)?;
        let mut page = [0; PAGE];
        each_page(start, len, |at, done, len| {
            self.read_blocking(cx, at, &mut page[..len])?;
            self.touched(cx, || user.put(cx, done, &page[..len]))
        })
    }

    /// Writes `len` bytes of memory that may fault from `start` on, and waits. Takes 4 KiB of stack.
    ///
    /// # Errors
    /// As [`Volume::write_blocking`], or what the memory failed with; pages before that are written.
    pub fn write_from_user(&self, cx: &Task, start: u64, len: usize, user: &mut impl UserMemory) -> Result<(), Error> {
        self.range(cx, start, len)?;
        let mut page = [0; PAGE];
        each_page(start, len, |at, done, len| {
            self.touched(cx, || user.get(cx, done, &mut page[..len]))?;
            self.write_blocking(cx, at, &page[..len])
        })
    }

    /// Where memory that may fault is touched.
    fn touched(&self, cx: &Task, touch: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let held = broken::is(Hazard::UserUnderLock).then(|| self.core.state.lock(cx));
        assert_unlocked("memory that may fault is touched");
        let touched = touch();
        drop(held);
        touched
    }
}

/// Goes through the pages of a range: where each part begins, what was before it, and its length.
fn each_page(
    start: u64,
    len: usize,
    mut part: impl FnMut(u64, usize, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut done = 0;
    while done < len {
        let at = start + done as u64;
        let here = (PAGE - (at % PAGE as u64) as usize).min(len - done);
        part(at, done, here)?;
        done += here;
    }
    Ok(())
}
