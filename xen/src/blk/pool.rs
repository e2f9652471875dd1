//! Pages through which all data goes: granted to the other domain once, when a disk is connected, and until it is disconnected.
//!
//! The other domain never sees a page of a request: what it may reach is this pool and the rings, for as long as it likes, and no grant is
//! made or taken back while data moves. The price is one copy.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;

use arrayvec::ArrayVec;
use undercroft_hal::Task;
use undercroft_hal::dma::{Coherent, DmaConstraints};
use undercroft_hal::xen::{Access, Domain, DomainId, Grant, PAGE};

use super::error::ConnectError;

/// Whole pages that another domain may reach for as long as this lives. Dropped while the other domain uses one of them, their memory is never used
/// again: it may be written to at any time.
pub(crate) struct Granted {
    /// There until it is dropped.
    memory: Option<Coherent>,
    grants: Vec<Grant>,
    domain: Arc<Domain>,
}

impl Granted {
    /// `pages` new, zeroed pages in a row. The grant table grows as needed.
    pub(crate) fn new(cx: &Task, domain: &Arc<Domain>, other: DomainId, pages: usize) -> Result<Self, ConnectError> {
        let memory = Coherent::new(pages * PAGE, DmaConstraints::ANY).map_err(ConnectError::Memory)?;
        let first = memory.addr(0) / PAGE as u64;
        let grants = Vec::with_capacity(pages);
        // From here on what was granted is taken back whatever fails.
        let mut this = Self { memory: Some(memory), grants, domain: Arc::clone(domain) };
        for frame in first..first + pages as u64 {
            let grant = match domain.grant(other, frame, Access::Write) {
                Ok(grant) => grant,
                Err(_) => {
                    domain.add_grants(cx).map_err(|_| ConnectError::NoGrant)?;
                    domain.grant(other, frame, Access::Write).map_err(|_| ConnectError::NoGrant)?
                }
            };
            this.grants.push(grant);
        }
        Ok(this)
    }

    /// The references of the pages, in order.
    pub(crate) fn references(&self) -> impl Iterator<Item = u32> + '_ {
        self.grants.iter().map(Grant::reference)
    }

    /// The reference of the first page.
    #[inline]
    pub(crate) fn reference(&self) -> u32 {
        self.grants.first().map_or(0, Grant::reference)
    }
}

impl Deref for Granted {
    type Target = Coherent;

    /// # Panics
    /// Never: the memory is there until it is dropped.
    #[inline]
    fn deref(&self) -> &Coherent {
        self.memory.as_ref().expect("there until dropped")
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        let mut is_free = true;
        for grant in self.grants.drain(..) {
            // One that is in use stays granted.
            is_free &= self.domain.revoke(grant).is_ok();
        }
        if !is_free {
            core::mem::forget(self.memory.take());
            log::error!("xen: pages that the other domain still uses are lost");
        }
    }
}

/// Pages of one request at most: of its data, and one of segments.
pub(crate) const MOST_PAGES: usize = MOST_SEGMENTS + 1;
/// Segments of one request at most, whatever the other end would take: 128 KiB of data.
pub(crate) const MOST_SEGMENTS: usize = 32;

/// The pages of a request, by their numbers in the pool.
pub(crate) type Lent = ArrayVec<u16, MOST_PAGES>;

/// Which pages are not lent. The pages themselves lie beside it, as they are used without its lock.
pub(crate) struct Free(Vec<u16>);

impl Free {
    pub(crate) fn new(pages: usize) -> Self {
        Self((0..pages.min(usize::from(u16::MAX)) as u16).rev().collect())
    }

    /// Lends `count` pages. `None`: there are not so many, or a request may not have so many.
    pub(crate) fn lend(&mut self, count: usize) -> Option<Lent> {
        let rest = self.0.len().checked_sub(count).filter(|_| count <= MOST_PAGES)?;
        Some(self.0.drain(rest..).collect())
    }

    /// Takes pages back that were lent: the list has room for all.
    pub(crate) fn take_back(&mut self, lent: &Lent) {
        self.0.extend_from_slice(lent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_is_lent_twice_and_all_come_back() {
        let mut free = Free::new(10);
        let capacity = free.0.capacity();
        let lent: Vec<Lent> = [3, 0, 7].map(|count| free.lend(count).unwrap()).into();
        assert!(free.lend(1).is_none());
        let mut all: Vec<u16> = lent.iter().flatten().copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        lent.iter().for_each(|pages| free.take_back(pages));
        assert!(free.lend(11).is_none());
        assert_eq!(free.lend(10).map(|lent| lent.len()), Some(10));
        assert_eq!(free.0.capacity(), capacity, "nothing was allocated");
        assert!(Free::new(MOST_PAGES + 1).lend(MOST_PAGES + 1).is_none());
    }
}
