//! Pages through which all data goes: granted to the other domain once, when a disk is connected, and until it is disconnected.
//!
//! The other domain never sees a page of a request: what it may reach is this pool and the rings, for as long as it likes, and no grant is
//! made or taken back while data moves. The price is one copy.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;
use undercroft_hal::Task;
use undercroft_hal::dma::{Coherent, DmaConstraints};
use undercroft_hal::xen::{Access, Domain, DomainId, Grant, PAGE};

use super::deferred;
use super::error::ConnectError;

/// Whole pages that another domain may reach for as long as this lives. Dropped while the other domain uses one of them, their memory stays
/// allocated until it does not any more: it may be written to at any time.
pub(crate) struct Granted {
    /// There until it is dropped.
    memory: Option<Coherent>,
    grants: Vec<Grant>,
    domain: Arc<Domain>,
    other: DomainId,
    /// The other domain still used it when it was asked to have let go: nothing may be put there.
    is_kept: AtomicBool,
}

impl Granted {
    /// `pages` new, zeroed pages in a row. In task context the grant table grows as needed.
    pub(crate) fn new(
        cx: Option<&Task>,
        domain: &Arc<Domain>,
        other: DomainId,
        pages: usize,
    ) -> Result<Self, ConnectError> {
        let memory = Coherent::new(pages * PAGE, DmaConstraints::ANY).map_err(ConnectError::Memory)?;
        let first = memory.addr(0) / PAGE as u64;
        let grants = Vec::with_capacity(pages);
        // From here on what was granted is taken back whatever fails.
        let is_kept = AtomicBool::new(false);
        let mut this = Self { memory: Some(memory), grants, domain: Arc::clone(domain), other, is_kept };
        for frame in first..first + pages as u64 {
            let grant = match domain.grant(other, frame, Access::Write) {
                Ok(grant) => grant,
                Err(_) => {
                    let cx = cx.ok_or(ConnectError::NoGrant)?;
                    domain.add_grants(cx).map_err(|_| ConnectError::NoGrant)?;
                    domain.grant(other, frame, Access::Write).map_err(|_| ConnectError::NoGrant)?
                }
            };
            this.grants.push(grant);
        }
        Ok(this)
    }

    /// Makes all grants anew, with the same references, for another end: the one before has let go of the pages. If it has not, they are
    /// [kept](Granted::is_kept). Returns whether it has.
    pub(crate) fn renew(&self) -> bool {
        let first = self.addr(0) / PAGE as u64;
        let renew = |(grant, frame)| self.domain.renew(grant, self.other, frame, Access::Write).is_ok();
        let is_free = self.grants.iter().zip(first..).map(renew).fold(true, |all, one| all & one);
        self.is_kept.store(!is_free, Ordering::Release);
        is_free
    }

    /// Whether an end that should have let go uses it.
    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::Acquire)
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
        let memory = self.memory.take();
        self.grants = revoke(&self.domain, core::mem::take(&mut self.grants));
        if let (Some(memory), false) = (memory, self.grants.is_empty()) {
            log::warn!(
                "xen: the other domain still uses pages that it should have let go of: they are freed when it does"
            );
            deferred::keep(memory, core::mem::take(&mut self.grants), &self.domain);
        }
    }
}

/// Takes grants back. Returns those that are in use.
pub(super) fn revoke(domain: &Domain, grants: Vec<Grant>) -> Vec<Grant> {
    // In place: the vector is used again.
    grants.into_iter().filter_map(|grant| domain.revoke(grant).err().map(|(grant, _)| grant)).collect()
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

    /// Takes pages back that were lent: the list has room for all. Those that the other end keeps are lent to nobody.
    pub(crate) fn take_back(&mut self, lent: &Lent, pages: &[Granted]) {
        let is_kept = |page: &&u16| pages.get(usize::from(**page)).is_some_and(Granted::is_kept);
        self.0.extend(lent.iter().filter(|page| !is_kept(page)));
    }

    /// Sorts out what has changed with the pages: `was_kept` says which were kept before.
    pub(crate) fn sort(&mut self, pages: &[Granted], was_kept: &[bool]) {
        self.0.retain(|page| pages.get(usize::from(*page)).is_some_and(|page| !page.is_kept()));
        let back = (0..).zip(pages.iter().zip(was_kept)).filter(|(_, (page, was_kept))| **was_kept && !page.is_kept());
        self.0.extend(back.map(|(index, _): (u16, _)| index));
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
        lent.iter().for_each(|pages| free.take_back(pages, &[]));
        assert!(free.lend(11).is_none());
        assert_eq!(free.lend(10).map(|lent| lent.len()), Some(10));
        assert_eq!(free.0.capacity(), capacity, "nothing was allocated");
        assert!(Free::new(MOST_PAGES + 1).lend(MOST_PAGES + 1).is_none());
    }
}
