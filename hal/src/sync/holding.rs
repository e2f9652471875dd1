//! What one CPU knows of the locks it holds: where each was taken, and how long each rank was ever held. Kept in checked builds only.

use core::panic::Location;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::rank::{CHECKED, RANKS};
use crate::clock::Instant;

/// Room for the notes: none where they are not kept.
const ROOM: usize = if CHECKED { RANKS } else { 0 };

/// One CPU's notes. Written by that CPU with interrupts off or by its task alone; read by any.
#[derive(Debug)]
pub(crate) struct Holding {
    sites: [AtomicPtr<Location<'static>>; ROOM],
    since: [AtomicU64; ROOM],
    longest: [AtomicU64; ROOM],
}

impl Holding {
    pub(crate) const fn new() -> Self {
        Self {
            sites: [const { AtomicPtr::new(ptr::null_mut()) }; ROOM],
            since: [const { AtomicU64::new(0) }; ROOM],
            longest: [const { AtomicU64::new(0) }; ROOM],
        }
    }

    pub(super) fn taken(&self, rank: usize, site: &'static Location<'static>, now: Instant) {
        self.sites[rank].store(ptr::from_ref(site).cast_mut(), Ordering::Relaxed);
        self.since[rank].store(now.as_nanos(), Ordering::Relaxed);
    }

    pub(super) fn released(&self, rank: usize, now: Instant) {
        let held = now.as_nanos().saturating_sub(self.since[rank].load(Ordering::Relaxed));
        self.longest[rank].fetch_max(held, Ordering::Relaxed);
    }

    /// Where the lock of `rank` was taken last.
    pub(super) fn site(&self, rank: usize) -> &'static Location<'static> {
        let site = self.sites[rank].load(Ordering::Relaxed);
        // SAFETY: only `taken` stores here, and only pointers made from `&'static Location`.
        unsafe { site.as_ref() }.unwrap_or(Location::caller())
    }

    /// The longest that a lock of each rank was held on this CPU: (rank, nanoseconds), for ranks ever held.
    pub(crate) fn longest(&self) -> impl Iterator<Item = (u8, u64)> + '_ {
        let ranks = self.longest.iter().enumerate();
        ranks.map(|(rank, nanos)| (rank as u8, nanos.load(Ordering::Relaxed))).filter(|&(_, nanos)| nanos > 0)
    }
}
