//! A fair spin lock without data: tickets are served in the order they were drawn. Any context, with the caller
//! having shut out whatever on this CPU could take the same lock.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::broken::{self, Hazard};
use crate::cpu;

#[derive(Debug)]
pub(super) struct Ticket {
    next: AtomicU32,
    serving: AtomicU32,
}

impl Ticket {
    pub(super) const fn new() -> Self {
        Self { next: AtomicU32::new(0), serving: AtomicU32::new(0) }
    }

    #[inline]
    pub(super) fn lock(&self) {
        // Relaxed: the acquire below, when our number comes up, orders us after the last holder.
        let mine = self.next.fetch_add(1, Ordering::Relaxed);
        while self.serving.load(Ordering::Acquire) != mine {
            cpu::relax();
        }
    }

    pub(super) fn try_lock(&self) -> bool {
        let serving = self.serving.load(Ordering::Acquire);
        // Drawing a ticket only when it would be served at once: nobody waits behind a ticket that gave up.
        self.next.compare_exchange(serving, serving.wrapping_add(1), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Only the holder calls this.
    #[inline]
    pub(super) fn unlock(&self) {
        // Only the holder writes `serving`, so a plain load and store will do.
        let now = self.serving.load(Ordering::Relaxed);
        self.serving.store(now.wrapping_add(1), broken::ordering(Hazard::RelaxedUnlock, Ordering::Release));
    }
}
