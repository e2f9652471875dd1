//! A volume: a device with a cache before it.

pub(crate) mod aside;
mod begin;
pub(crate) mod core;
mod discard;
mod house;
mod read;
mod send;
pub(crate) mod state;
pub(crate) mod sync;
mod task;
pub(crate) mod user;
mod write;
pub(crate) mod writeback;

use ::core::fmt;
use ::core::ops::Range;
use alloc::sync::Arc;

use undercroft_block::{BlockDevice, Data, Error};
use undercroft_hal::Task;
use undercroft_hal::context::NotHardIrq;
use undercroft_hal::sync::assert_unlocked;

use self::core::Core;
use crate::broken::{self, Hazard};
use crate::config::{Config, Stats};
use crate::group::Share;
use crate::op::{Done, Kind};
use crate::shim::Ordering;
use crate::table::PAGE;

/// An operation that was not taken, with its data.
#[derive(Debug)]
pub struct Refused {
    /// The data that was given with it.
    pub data: Data,
    /// Why it never can be; `None` if there is no slot for it now: try again after the completion of another.
    pub error: Option<Error>,
}

/// A handle to a volume. Errors of write-back are told to each handle, once, by its next sync.
///
/// When the last handle goes, what is dirty is written all the same; [`Volume::close`] waits for that.
pub struct Volume {
    pub(crate) core: Arc<Core>,
    handle: u16,
}

impl Volume {
    /// Puts a cache before a device, and becomes its watcher. The callout service must have been started. Bottom half or task: it allocates
    /// all that it will need but the pages.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; [`Error::Unsupported`] if the device's blocks are larger than a page, its requests smaller, or it has
    /// more than 8 PiB.
    pub fn open(cx: &impl NotHardIrq, device: Arc<dyn BlockDevice>, config: Config) -> Result<Self, Error> {
        Self::open_with(cx, device, config, None)
    }

    pub(crate) fn open_with(
        cx: &impl NotHardIrq,
        device: Arc<dyn BlockDevice>,
        config: Config,
        share: Option<Share>,
    ) -> Result<Self, Error> {
        let core = Core::new(device, config, share)?;
        Self::of(cx, core).ok_or(Error::NoMemory)
    }

    fn of(cx: &impl NotHardIrq, core: Arc<Core>) -> Option<Self> {
        let handle = core.state.lock(cx).errors.open()?;
        core.handles.fetch_add(1, Ordering::AcqRel);
        Some(Self { core, handle })
    }

    /// A further handle, which is told of errors for itself. `None`: there are [`Config::handles`].
    pub fn another(&self, cx: &impl NotHardIrq) -> Option<Self> {
        Self::of(cx, Arc::clone(&self.core))
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.core.device
    }

    /// Bytes that can be read and written.
    pub fn size(&self, cx: &impl NotHardIrq) -> u64 {
        self.core.state.lock(cx).end
    }

    /// What it has seen, and has now.
    pub fn stats(&self, cx: &impl NotHardIrq) -> Stats {
        self.core.state.lock(cx).stats()
    }

    /// Reads as many bytes as `data` has, from byte `start` on.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn read(&self, cx: &impl NotHardIrq, start: u64, data: Data, done: Done) -> Result<(), Refused> {
        self.transfer(cx, Kind::Read, start, data, done)
    }

    /// Writes `data` from byte `start` on. When it completes, every later read sees it; it is durable when a sync that was begun after that has
    /// succeeded.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn write(&self, cx: &impl NotHardIrq, start: u64, data: Data, done: Done) -> Result<(), Refused> {
        self.transfer(cx, Kind::Write, start, data, done)
    }

    /// Makes durable what was written, before this call, to a range of bytes (`..` pages that it touches). It fails if writing any of that
    /// failed, or if anything of the volume failed that this handle was not told of yet.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn sync(&self, cx: &impl NotHardIrq, range: Range<u64>, done: Done) -> Result<(), Refused> {
        let end = range.end.min(self.size(cx));
        self.begin(cx, Kind::Sync, range.start.min(end), end, Data::None, done)
    }

    /// Makes durable all that was written before this call.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn sync_all(&self, cx: &impl NotHardIrq, done: Done) -> Result<(), Refused> {
        self.sync(cx, 0..u64::MAX, done)
    }

    /// Gives up the content of those pages that are wholly in a range of bytes, here and on the device, if that can: what they read as is not
    /// defined afterwards, and what was not written of them is lost. Fails with [`Error::Busy`] at a pinned page.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn discard(&self, cx: &impl NotHardIrq, range: Range<u64>, done: Done) -> Result<(), Refused> {
        if let Err(error) = self.core.state.lock(cx).may_write() {
            return Err(Refused { data: Data::None, error: Some(error) });
        }
        self.forget(cx, range, true, done)
    }

    /// Forgets those pages that are wholly in a range of bytes, and what was not written of them: the device changed behind the cache's back,
    /// or fails for good. Fails with [`Error::Busy`] at a pinned page.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn invalidate(&self, cx: &impl NotHardIrq, range: Range<u64>, done: Done) -> Result<(), Refused> {
        self.forget(cx, range, false, done)
    }

    /// Cuts the volume to `size` bytes, at most what it has: what is behind is forgotten, and can neither be read nor written from now on.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn truncate(&self, cx: &impl NotHardIrq, size: u64, done: Done) -> Result<(), Refused> {
        let old = {
            let mut state = self.core.state.lock(cx);
            let old = state.end;
            state.end = size.min(old);
            old
        };
        self.forget(cx, size.min(old)..old, false, done)
    }

    fn forget(&self, cx: &impl NotHardIrq, range: Range<u64>, device: bool, done: Done) -> Result<(), Refused> {
        let (start, end) = self.whole_pages(cx, range);
        self.begin(cx, Kind::Discard { device }, start, end, Data::None, done)
    }

    /// The pages that are wholly in a range, the device's last one possibly cut: their first byte, and their end.
    fn whole_pages(&self, cx: &impl NotHardIrq, range: Range<u64>) -> (u64, u64) {
        let page = PAGE as u64;
        let all = self.core.state.lock(cx).device_end;
        let start = range.start.min(all).next_multiple_of(page);
        let end = if range.end >= all { all } else { range.end / page * page };
        (start, end.max(start))
    }

    /// Has a page brought in, if it is not here, and pins it: the page of byte `at`.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn pin(&self, cx: &impl NotHardIrq, at: u64, done: Done) -> Result<(), Refused> {
        let size = self.size(cx);
        if at >= size {
            return Err(Refused { data: Data::None, error: Some(Error::OutOfRange) });
        }
        self.begin(cx, Kind::Pin, at, at + 1, Data::None, done)
    }

    /// Another budget, in pages, up to [`Config::pages`]. Memory beyond it is given back now as far as its pages are clean and not pinned:
    /// returned is how many pages with memory there are. For memory pressure, and its end.
    pub fn resize_cache(&self, cx: &impl NotHardIrq, pages: u32) -> u32 {
        self.core.state.lock(cx).set_budget(pages);
        let mut at = Some(0);
        while let Some(from) = at {
            let (chunk, next) = {
                let mut state = self.core.state.lock(cx);
                if state.table.is_over() { state.table.coldest_chunk(from) } else { (None, None) }
            };
            at = next;
            let Some(chunk) = chunk else { continue };
            let held = broken::is(Hazard::FreesUnderLock).then(|| self.core.state.lock(cx));
            assert_unlocked("memory of pages is freed");
            drop(held);
            self.core.give_back(Some(chunk));
        }
        self.core.drive(cx);
        self.core.state.lock(cx).table.with_memory()
    }

    /// Waits until an operation that was [refused](Refused) for want of a slot may be tried again.
    pub fn wait_for_room(&self, cx: &Task) {
        self.core.wait_for_room(cx);
    }

    fn transfer(&self, cx: &impl NotHardIrq, kind: Kind, start: u64, data: Data, done: Done) -> Result<(), Refused> {
        let end = start.checked_add(data.len() as u64).filter(|end| *end <= self.size(cx));
        let Some(end) = end else { return Err(Refused { data, error: Some(Error::OutOfRange) }) };
        if kind == Kind::Write && self.core.is_read_only() {
            return Err(Refused { data, error: Some(Error::ReadOnly) });
        }
        self.begin(cx, kind, start, end, data, done)
    }

    fn begin(
        &self,
        cx: &impl NotHardIrq,
        kind: Kind,
        start: u64,
        end: u64,
        data: Data,
        done: Done,
    ) -> Result<(), Refused> {
        match self.core.begin_op(cx, self.handle, kind, start, end, data, done) {
            Ok(_) => Ok(()),
            Err((data, _)) => Err(Refused { data, error: None }),
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.core.handle_gone(self.handle);
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Volume({} {})", self.core.device.identity().controller, self.core.device.identity().serial)
    }
}

#[cfg(test)]
impl Volume {
    /// Checks the pages' lists and counts.
    pub(crate) fn verify(&self, cx: &impl NotHardIrq) {
        let state = self.core.state.lock(cx);
        undercroft_hal::hosted::trap::outside(|| state.table.verify());
    }
}
