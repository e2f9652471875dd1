//! The grant table: which of our frames another domain may reach (`public/grant_table.h`, version 1).

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use arrayvec::ArrayVec;
use zerocopy::IntoBytes;

use super::domain::{Domain, StartError, answer, share};
use super::refs::Refs;
use super::wire::{self, MYSELF, QuerySize, entry, grant, memory};
use super::{DomainId, Hypervisor, PAGE, SharedPage};
use crate::broken::{self, Hazard};
use crate::context::Task;
use crate::sync::{IrqSpinLock, Rank};

/// Frames of the table at most, whatever Xen would allow.
const FRAMES: usize = 64;
const ENTRIES_PER_FRAME: u32 = (PAGE / entry::BYTES) as u32;
const WORDS: usize = FRAMES * ENTRIES_PER_FRAME as usize / 32;
/// Anything may be held while a frame is granted.
const RANK: Rank = Rank::new(47);

/// What the other domain may do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
}

/// No grant is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoGrant;

impl fmt::Display for NoGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no grant is free")
    }
}

/// The other domain uses the frame: it stays granted, and its memory must not be used for anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InUse;

/// A frame that is granted. It stays so until [`Domain::revoke`] has taken this back: what is dropped stays granted for ever, and its frame must
/// stay allocated.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is granted stays granted until it is revoked"]
pub struct Grant(u32);

impl Grant {
    /// Its number, which the other domain is told.
    pub fn reference(&self) -> u32 {
        self.0
    }
}

pub(super) struct Grants {
    /// The table, as far as it has grown.
    frames: IrqSpinLock<ArrayVec<SharedPage, FRAMES>>,
    refs: Refs<WORDS>,
    /// Frames that Xen allows.
    most: u32,
    granted: AtomicU64,
    revoked: AtomicU64,
}

/// An entry's place: its frame, and the offset of its first word there.
fn place(reference: u32) -> (usize, usize) {
    ((reference / ENTRIES_PER_FRAME) as usize, (reference % ENTRIES_PER_FRAME) as usize * entry::BYTES)
}

impl Grants {
    /// A table of one frame, of version 1, without what the tool stack keeps for itself.
    pub(super) fn start(hypervisor: &dyn Hypervisor) -> Result<Self, StartError> {
        let mut version = 1u32;
        let refused = |errno| StartError::Refused("no grant table of version 1", errno);
        answer(hypervisor.call(wire::call::GRANT_TABLE, grant::SET_VERSION, version.as_mut_bytes()))
            .map_err(refused)?;
        let mut size = QuerySize { domain: MYSELF, ..QuerySize::default() };
        answer(hypervisor.call(wire::call::GRANT_TABLE, grant::QUERY_SIZE, size.as_mut_bytes())).map_err(refused)?;
        let this = Self {
            frames: IrqSpinLock::new(RANK, ArrayVec::new_const()),
            refs: Refs::new(),
            most: if size.status == 0 { size.most.min(FRAMES as u32) } else { 1 },
            granted: AtomicU64::new(0),
            revoked: AtomicU64::new(0),
        };
        this.grow(hypervisor)?;
        Ok(this)
    }

    /// Adds a frame to the table. One caller at a time: task context.
    fn grow(&self, hypervisor: &dyn Hypervisor) -> Result<(), StartError> {
        let index = self.frames.lock().len() as u32;
        if index >= self.most {
            return Err(StartError::NoFrame);
        }
        let page = share(hypervisor, memory::SPACE_GRANT_TABLE, u64::from(index))?;
        if self.frames.lock().try_push(page).is_err() {
            return Err(StartError::NoFrame);
        }
        let first = index * ENTRIES_PER_FRAME;
        let reserved = if index == 0 { entry::RESERVED } else { 0 };
        (first + reserved..first + ENTRIES_PER_FRAME).for_each(|reference| self.refs.give(reference));
        Ok(())
    }

    fn set(&self, reference: u32, domain: DomainId, frame: u32, access: Access) {
        let (index, offset) = place(reference);
        let flags = entry::PERMIT_ACCESS | if access == Access::Read { entry::READ_ONLY } else { 0 };
        let frames = self.frames.lock();
        let Some(page) = frames.get(index) else { return };
        page.word(offset + 4).store(frame, Ordering::Relaxed);
        // The flags make the rest hold.
        page.word(offset).store(flags | u32::from(domain.0) << 16, Ordering::Release);
    }

    /// Whether the entry could be cleared: the other domain does not use it.
    fn clear(&self, reference: u32) -> bool {
        let (index, offset) = place(reference);
        let frames = self.frames.lock();
        let Some(page) = frames.get(index) else { return false };
        let word = page.word(offset);
        // In one step, or it could be taken into use after it was looked at.
        let clear = |seen: u32| (seen & entry::IN_USE == 0).then_some(0);
        word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, clear).is_ok()
    }

    pub(super) fn counts(&self) -> (u64, u64) {
        (self.granted.load(Ordering::Relaxed), self.revoked.load(Ordering::Relaxed))
    }
}

impl Domain {
    /// Lets another domain reach a frame, by its number (the device address of a page, divided by 4096). Any context.
    ///
    /// The memory must stay allocated, and used for nothing else, until [`Domain::revoke`] has succeeded: the other domain may write to
    /// it at any time. The caller keeps the memory by owning both.
    ///
    /// # Errors
    /// [`NoGrant`]: see [`Domain::add_grants`]. Also for a frame beyond 16 TiB.
    pub fn grant(&self, domain: DomainId, frame: u64, access: Access) -> Result<Grant, NoGrant> {
        let grants = &self.inner.grants;
        let frame = u32::try_from(frame).map_err(|_| NoGrant)?;
        let reference = grants.refs.take().ok_or(NoGrant)?;
        grants.set(reference, domain, frame, access);
        grants.granted.fetch_add(1, Ordering::Relaxed);
        Ok(Grant(reference))
    }

    /// Takes a grant back. Any context.
    ///
    /// # Errors
    /// [`InUse`], with the grant, while the other domain uses the frame: it is to be tried again later.
    pub fn revoke(&self, grant: Grant) -> Result<(), (Grant, InUse)> {
        let grants = &self.inner.grants;
        if !grants.clear(grant.0) && !broken::is(Hazard::RevokedInUse) {
            return Err((grant, InUse));
        }
        grants.revoked.fetch_add(1, Ordering::Relaxed);
        grants.refs.give(grant.0);
        Ok(())
    }

    /// Takes a grant back and makes it again, of the same frame and with the same number: what the other domain had mapped by it is gone, and a
    /// successor that is told the number may map it. Any context.
    ///
    /// # Errors
    /// [`InUse`] while the other domain uses the frame: the grant stays as it is.
    pub fn renew(&self, grant: &Grant, domain: DomainId, frame: u64, access: Access) -> Result<(), InUse> {
        let grants = &self.inner.grants;
        // It was made of this frame, whose number has 32 bits.
        let Ok(frame) = u32::try_from(frame) else { return Err(InUse) };
        if !grants.clear(grant.0) && !broken::is(Hazard::RevokedInUse) {
            return Err(InUse);
        }
        grants.set(grant.0, domain, frame, access);
        grants.revoked.fetch_add(1, Ordering::Relaxed);
        grants.granted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Grows the table by 512 grants.
    ///
    /// # Errors
    /// [`StartError`]: it is as large as Xen allows.
    pub fn add_grants(&self, _cx: &Task) -> Result<(), StartError> {
        self.inner.grants.grow(&*self.inner.hypervisor)
    }
}
