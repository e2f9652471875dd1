//! Pages that somebody holds on to.

use alloc::sync::Arc;

use undercroft_block::Error;
use undercroft_hal::context::NotHardIrq;

use crate::line::NOBODY;
use crate::table::PAGE;
use crate::volume::core::Core;

/// A page that is valid, and that is not evicted while this lives. It may be dropped in any context.
pub struct Pinned {
    core: Arc<Core>,
    pin: u16,
}

impl Pinned {
    pub(crate) fn new(core: Arc<Core>, pin: u16) -> Self {
        Self { core, pin }
    }

    /// Where its memory is, for an embedder that maps it to be read: the platform's address of the page, as devices see it. It stays there
    /// while this lives.
    pub fn addr(&self, cx: &impl NotHardIrq) -> u64 {
        let state = self.core.state.lock(cx);
        state.table.addr(state.pins[usize::from(self.pin)]).unwrap_or_default()
    }

    /// Its index in the volume: its first byte's offset, divided by [`PAGE`].
    pub fn index(&self, cx: &impl NotHardIrq) -> u64 {
        let state = self.core.state.lock(cx);
        state.table.page(state.pins[usize::from(self.pin)]).index
    }

    /// Copies bytes of it from `offset` on. A part beyond its end is left as it was.
    pub fn read(&self, cx: &impl NotHardIrq, offset: usize, into: &mut [u8]) {
        let state = self.core.state.lock(cx);
        let offset = offset.min(PAGE);
        let len = into.len().min(PAGE - offset);
        into[..len].copy_from_slice(&state.table.bytes(state.pins[usize::from(self.pin)])[offset..offset + len]);
    }

    /// Changes bytes of it from `offset` on, as a write does.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if they are not all in the page and the volume, [`Error::ReadOnly`], or what ended the device.
    pub fn write(&self, cx: &impl NotHardIrq, offset: usize, from: &[u8]) -> Result<(), Error> {
        {
            let mut state = self.core.state.lock(cx);
            let slot = state.pins[usize::from(self.pin)];
            let index = state.table.page(slot).index;
            let end =
                offset.checked_add(from.len()).filter(|end| *end <= state.bytes_of(index)).ok_or(Error::OutOfRange)?;
            state.may_write()?;
            state.put(slot, index, offset, end - offset, |page| page.copy_from_slice(from));
        }
        self.core.drive(cx);
        Ok(())
    }

    /// Lets it go now, where dropping leaves that to a bottom half.
    pub fn unpin(mut self, cx: &impl NotHardIrq) {
        let pin = core::mem::replace(&mut self.pin, NOBODY);
        self.core.unpin_now(cx, pin);
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.pin != NOBODY {
            self.core.unpin_later(self.pin);
        }
    }
}

impl core::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pinned").field("pin", &self.pin).finish_non_exhaustive()
    }
}
