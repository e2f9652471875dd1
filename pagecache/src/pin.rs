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

    /// For an embedder that maps it to be written: by a process, or by a device of its own. From here on the page counts as changed until the mapping
    /// is gone, and no processor's note of what was changed is asked for (pattern 35).
    ///
    /// # Errors
    /// [`Error::ReadOnly`], or what ended the device.
    pub fn map(self, cx: &impl NotHardIrq) -> Result<Mapped, (Self, Error)> {
        let mapped = self.core.state.lock(cx).map_pin(usize::from(self.pin));
        match mapped {
            Ok(()) => {
                self.core.drive(cx);
                Ok(Mapped { pinned: self })
            }
            Err(error) => Err((self, error)),
        }
    }

    /// Lets it go now, where dropping leaves that to a bottom half.
    pub fn unpin(mut self, cx: &impl NotHardIrq) {
        let pin = core::mem::replace(&mut self.pin, NOBODY);
        self.core.unpin_now(cx, pin);
    }
}

/// A page that may be changed at any time, by whoever has it mapped: neither evicted nor ever clean while this lives.
///
/// A sync makes durable what was in the page when the sync copied it; what is changed while it is copied may be cut in the middle. What was changed
/// last is written after this is gone, if it goes after the mapping: every processor must have forgotten its translation by then. A discard or
/// truncation of its range fails with [`Error::Busy`].
#[derive(Debug)]
#[must_use = "the page may be changed by its mapping only while this lives"]
pub struct Mapped {
    pinned: Pinned,
}

impl Mapped {
    /// As [`Pinned::addr`].
    pub fn addr(&self, cx: &impl NotHardIrq) -> u64 {
        self.pinned.addr(cx)
    }

    /// The page.
    pub const fn page(&self) -> &Pinned {
        &self.pinned
    }

    /// Takes the mapping away by `shoot_down`, after which no processor may have a translation of it, and lets the page go then, which is the order that
    /// loses nothing.
    pub fn unmap(self, cx: &impl NotHardIrq, shoot_down: impl FnOnce()) {
        shoot_down();
        self.pinned.unpin(cx);
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
