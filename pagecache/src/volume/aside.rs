//! Parts of a volume that are set aside: their owner uses the device itself, and the cache has nothing of them (pattern 37). For logs.

use alloc::sync::Arc;
use core::ops::Range;

use undercroft_block::{BlockDevice, Error, Identity, Info, Refusal, Rejected, Request, Tag, Watcher};
use undercroft_hal::Task;

use super::Volume;
use super::core::Core;
use super::state::State;
use crate::broken::{self, Hazard};
use crate::op::Kind;
use crate::shim::Ordering;
use crate::table::PAGE;

/// Parts of a volume that can be set aside at once.
pub(crate) const ASIDES: usize = 8;

/// A part of a volume that is set aside: a device of its own, with the blocks of that part. It keeps the volume. When it goes, the part is the cache's
/// again; its owner has no request under way by then. Events of the device go to the volume, not to its watchers.
pub struct Aside {
    core: Arc<Core>,
    at: usize,
    first: u64,
    blocks: u64,
}

impl Volume {
    /// Sets a range of bytes aside, in whole pages, and waits: what is dirty of it is written first, and all of it forgotten. From the call on, whatever
    /// comes to it through the cache fails with [`Error::Busy`].
    ///
    /// # Errors
    /// [`Error::BadLength`] for parts of pages or none, [`Error::OutOfRange`], [`Error::Busy`] if some of it is set aside already or pinned, or too many
    /// parts are; why it could not be written.
    pub fn set_aside(&self, cx: &Task, range: Range<u64>) -> Result<Arc<Aside>, Error> {
        let page = PAGE as u64;
        if range.is_empty() || !range.start.is_multiple_of(page) || !range.end.is_multiple_of(page) {
            return Err(Error::BadLength);
        }
        let (at, first, blocks) = {
            let mut state = self.core.state.lock(cx);
            if range.end > state.end {
                return Err(Error::OutOfRange);
            }
            let size = u64::from(state.block_size);
            let at = state.set_aside(range.start / page..range.end / page).ok_or(Error::Busy)?;
            (at, range.start / size, (range.end - range.start) / size)
        };
        let aside = Arc::new(Aside { core: Arc::clone(&self.core), at, first, blocks });
        if !broken::is(Hazard::AsideIgnored) {
            self.wait_for(cx, Kind::Sync, range.start, range.end)?;
            self.wait_for(cx, Kind::Discard { device: false }, range.start, range.end)?;
        }
        Ok(aside)
    }
}

impl State {
    fn set_aside(&mut self, pages: Range<u64>) -> Option<usize> {
        if self.asides.iter().flatten().any(|other| other.start < pages.end && pages.start < other.end) {
            return None;
        }
        let at = self.asides.iter().position(Option::is_none)?;
        self.asides[at] = Some(pages);
        self.aside += 1;
        Some(at)
    }

    fn take_back(&mut self, at: usize) {
        self.aside -= u32::from(self.asides[at].take().is_some());
    }

    /// Whether a page is set aside.
    #[inline]
    pub(super) fn is_aside(&self, index: u64) -> bool {
        self.aside > 0
            && !broken::is(Hazard::AsideIgnored)
            && self.asides.iter().flatten().any(|pages| pages.contains(&index))
    }
}

impl Core {
    /// Gives back to the cache the parts whose owners are gone.
    pub(super) fn collect_asides(&self, state: &mut State) {
        let mut gone = self.asides_gone.swap(0, Ordering::AcqRel);
        while gone != 0 {
            state.take_back(gone.trailing_zeros() as usize);
            gone &= gone - 1;
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.core.asides_gone.fetch_or(1 << self.at, Ordering::AcqRel);
        self.core.bottom.schedule();
    }
}

impl BlockDevice for Aside {
    fn identity(&self) -> &Identity {
        self.core.device.identity()
    }

    fn info(&self) -> Info {
        let info = self.core.device.info();
        Info { capacity: self.blocks.min(info.capacity.saturating_sub(self.first)), ..info }
    }

    fn submit(&self, mut request: Request) -> Result<Tag, Rejected> {
        if let Err(error) = request.check_range(&self.info()).and_then(|()| request.move_down(self.first)) {
            return Err(Rejected { request, why: Refusal::Invalid(error) });
        }
        self.core.device.submit(request).map_err(|mut rejected| {
            rejected.request.move_back(self.first);
            rejected
        })
    }

    fn commit(&self) {
        self.core.device.commit();
    }

    fn cancel(&self, tag: Tag) -> bool {
        self.core.device.cancel(tag)
    }

    fn watch(&self, _watcher: Arc<dyn Watcher>) {}
}

impl core::fmt::Debug for Aside {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Aside({} blocks at {})", self.blocks, self.first)
    }
}
