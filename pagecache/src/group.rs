//! Volumes that share one budget of pages.
//!
//! What is free of the budget goes to whoever wants it first, so that one busy volume may have all of it. Each volume has a *share* that it can
//! always come back to: the budget divided by the volumes there are. Who has less and finds nothing free takes a chunk from the one that has most beyond
//! its own share; who has that much evicts pages of its own. So a scan of one volume never takes another's share, and what nobody wants is not idle.
//!
//! Bottom half and task. No volume's lock is held while another's is taken.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};

use undercroft_block::{BlockDevice, Error};
use undercroft_hal::Task;
use undercroft_hal::context::NotHardIrq;
use undercroft_hal::sync::Rank;

use crate::broken::{self, Hazard};
use crate::config::{Config, Stats};
use crate::memory::filled;
use crate::op::Kind;
use crate::shim::{AtomicI64, AtomicU32, Ordering, SpinLock};
use crate::volume::Volume;
use crate::volume::core::Core;

/// Volumes that share one budget.
///
/// It may be dropped before its volumes, which go on sharing.
pub struct Cache {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    /// Pages of the budget, and those of them that no volume has: fewer than none after it shrank, until they are given back.
    total: AtomicU32,
    free: AtomicI64,
    members: SpinLock<Box<[Option<Weak<Core>>]>>,
}

/// A volume's part of the budget. What it has goes back with it.
pub(crate) struct Share {
    shared: Arc<Shared>,
    held: AtomicU32,
}

/// What all volumes of a [`Cache`] have together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Volumes.
    pub volumes: u32,
    /// Pages of the budget.
    pub budget: u32,
    /// Pages that volumes have memory for.
    pub held: u32,
    /// The share that each can come back to.
    pub share: u32,
}

impl Cache {
    /// A budget of `pages` for up to `volumes` volumes.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn new(pages: u32, volumes: u16) -> Result<Self, Error> {
        let members = filled(usize::from(volumes.max(1)), |_| None)?;
        // Below a volume's lock, though they are never held together.
        let members = SpinLock::new(Rank::new(7), members);
        let shared = Shared { total: AtomicU32::new(pages), free: AtomicI64::new(i64::from(pages)), members };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// As [`Volume::open`], with pages of this budget: [`Config::pages`] is the most that this volume may have of it.
    ///
    /// # Errors
    /// As [`Volume::open`]; [`Error::Busy`] if there are as many volumes as there may be.
    pub fn open(&self, cx: &impl NotHardIrq, device: Arc<dyn BlockDevice>, config: Config) -> Result<Volume, Error> {
        let share = Share { shared: Arc::clone(&self.shared), held: AtomicU32::new(0) };
        let volume = Volume::open_with(cx, device, config, Some(share))?;
        {
            let mut members = self.shared.members.lock(cx);
            let place =
                members.iter_mut().find(|member| member.as_ref().is_none_or(|member| member.strong_count() == 0));
            if let Some(place) = place {
                *place = Some(Arc::downgrade(&volume.core));
                return Ok(volume);
            }
        }
        Err(Error::Busy)
    }

    /// Makes durable all that was written to any of the volumes before this call, and waits: their syncs go on side by side. Errors that it tells are
    /// told to the volumes' own handles as well.
    ///
    /// # Errors
    /// Why one of them is not known to be durable; the others are.
    pub fn sync_all_blocking(&self, cx: &Task) -> Result<(), Error> {
        let (mut result, mut at) = (Ok(()), 0);
        while let Some((next, _)) = self.shared.member(cx, at) {
            // As many at once as there is room for here.
            let mut begun: [Option<(Arc<Core>, u16)>; 8] = [const { None }; 8];
            at = next;
            for place in &mut begun {
                let Some((member, core)) = self.shared.member(cx, at) else { break };
                at = member + 1;
                let id = core.begin_waiting(cx, core.observer(), Kind::Sync, 0, u64::MAX);
                *place = Some((core, id));
            }
            for (core, id) in begun.into_iter().flatten() {
                let ended = core.wait_until_over(cx, id);
                result = result.and(ended.map(drop));
            }
        }
        result
    }

    /// Another budget. Memory beyond it is given back now, as far as pages are clean and not pinned, and else as it comes free: returned is how many
    /// pages the volumes have. For memory pressure, and its end.
    pub fn resize(&self, cx: &impl NotHardIrq, pages: u32) -> u32 {
        let before = self.shared.total.swap(pages, Ordering::AcqRel);
        self.shared.free.fetch_add(i64::from(pages) - i64::from(before), Ordering::AcqRel);
        while self.shared.free.load(Ordering::Acquire) < 0 {
            if !self.shared.take_back(cx, None, 0) {
                break;
            }
        }
        // Who found none before may find some now.
        let mut at = 0;
        while let Some((member, core)) = self.shared.member(cx, at).filter(|_| pages > before) {
            core.state.lock(cx).short = false;
            at = member + 1;
        }
        self.totals(cx).held
    }

    /// What there is.
    pub fn totals(&self, cx: &impl NotHardIrq) -> Totals {
        let budget = self.shared.total.load(Ordering::Acquire);
        let held = i64::from(budget) - self.shared.free.load(Ordering::Acquire);
        let (volumes, share) = (self.shared.count(cx), self.shared.share(cx));
        Totals { volumes, budget, held: u32::try_from(held).unwrap_or(0), share }
    }

    /// Shows each volume's device and what it has seen, one after the other, with no lock held.
    pub fn each(&self, cx: &impl NotHardIrq, mut show: impl FnMut(&Arc<dyn BlockDevice>, Stats)) {
        let mut at = 0;
        while let Some((member, core)) = self.shared.member(cx, at) {
            let stats = core.state.lock(cx).stats();
            show(core.device(), stats);
            at = member + 1;
        }
    }
}

impl core::fmt::Debug for Cache {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Cache").field("pages", &self.shared.total.load(Ordering::Relaxed)).finish_non_exhaustive()
    }
}

impl Shared {
    /// The first member from place `from` on.
    fn member(&self, cx: &impl NotHardIrq, from: usize) -> Option<(usize, Arc<Core>)> {
        let members = self.members.lock(cx);
        members.iter().enumerate().skip(from).find_map(|(at, member)| Some((at, member.as_ref()?.upgrade()?)))
    }

    fn count(&self, cx: &impl NotHardIrq) -> u32 {
        self.members.lock(cx).iter().flatten().filter(|member| member.strong_count() > 0).count() as u32
    }

    fn share(&self, cx: &impl NotHardIrq) -> u32 {
        self.total.load(Ordering::Acquire) / self.count(cx).max(1)
    }

    /// Takes a chunk from the volume that has most of those that have more than `share`, `but` one. `false`: nobody can spare any.
    fn take_back(&self, cx: &impl NotHardIrq, but: Option<&Share>, share: u32) -> bool {
        // Who cannot spare any is passed over: next comes whoever has as much, behind it, or less.
        let mut below = (u32::MAX, usize::MAX);
        loop {
            let mut most: Option<(u32, usize, Arc<Core>)> = None;
            let mut at = 0;
            while let Some((member, core)) = self.member(cx, at) {
                at = member + 1;
                let Some(theirs) = core.share.as_ref() else { continue };
                let held = theirs.held.load(Ordering::Acquire);
                let other = but.is_none_or(|but| !core::ptr::eq(but, theirs));
                let best = most.as_ref().is_none_or(|(most, place, _)| (held, member) > (*most, *place));
                if other && held > share && (held, member) < below && best {
                    most = Some((held, member, core));
                }
            }
            let Some((held, member, core)) = most else { return false };
            if core.give_up(cx) {
                return true;
            }
            below = (held, member);
        }
    }
}

impl Share {
    /// Takes `pages` of the budget for this volume.
    pub(crate) fn take(&self, cx: &impl NotHardIrq, pages: u32) -> bool {
        if self.take_free(pages) {
            return true;
        }
        let share = self.shared.share(cx);
        let held = self.held.load(Ordering::Acquire);
        if held + pages > share && !broken::is(Hazard::SharesTaken) || broken::is(Hazard::SharesKept) {
            return false;
        }
        let floor = if broken::is(Hazard::SharesTaken) { 0 } else { share };
        // Another may take what was given back here: then once more, as long as somebody can spare any.
        while self.shared.take_back(cx, Some(self), floor) {
            if self.take_free(pages) {
                return true;
            }
        }
        false
    }

    fn take_free(&self, pages: u32) -> bool {
        let wanted = i64::from(pages);
        let take = |free: i64| (free >= wanted).then(|| free - wanted);
        let taken = self.shared.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok();
        if taken {
            self.held.fetch_add(pages, Ordering::AcqRel);
        }
        taken
    }

    /// Gives `pages` back.
    pub(crate) fn give(&self, pages: u32) {
        self.held.fetch_sub(pages, Ordering::AcqRel);
        self.shared.free.fetch_add(i64::from(pages), Ordering::AcqRel);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let held = self.held.load(Ordering::Acquire);
        self.shared.free.fetch_add(i64::from(held), Ordering::AcqRel);
    }
}
