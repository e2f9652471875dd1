//! Packets to the host. See the module above for the rules.

use super::{Breach, SenderMemory, ahead, checked, moved};
use crate::wire::ring::TRAILER;

/// Why a packet was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The host was asked to say when there is room.
    Full,
    /// It never fits.
    TooLong,
    /// The host broke the ring.
    Broken(Breach),
}

/// The sending side of a ring.
#[derive(Debug)]
pub(crate) struct Sender<M> {
    memory: M,
    size: u32,
    /// How far packets were written, and of those published.
    written: u32,
    published: u32,
    /// How far the host was seen to have read.
    read: u32,
    /// The free bytes that the host was asked for; 0 for none.
    pending: u32,
    #[cfg(test)]
    defects: crate::defect::Defects,
}

/// A packet that is being written: exactly as many words as were asked for.
pub(crate) struct Words<'a, M: SenderMemory> {
    memory: &'a M,
    size: u32,
    at: u32,
    left: u32,
}

impl<M: SenderMemory> Words<'_, M> {
    /// The next eight bytes. What is too much is left out.
    #[inline]
    pub(crate) fn put(&mut self, word: u64) {
        if self.left == 0 {
            return;
        }
        self.memory.set_word(self.at, word);
        self.at = moved(self.at, 8, self.size);
        self.left -= 8;
    }

    /// The next bytes, a multiple of eight.
    #[inline]
    pub(crate) fn put_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks_exact(8) {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.put(u64::from_le_bytes(word));
        }
    }
}

impl<M: SenderMemory> Sender<M> {
    /// An empty ring of `size` bytes; the memory is zero.
    pub(crate) fn new(memory: M, size: u32) -> Self {
        Self {
            memory,
            size,
            written: 0,
            published: 0,
            read: 0,
            pending: 0,
            #[cfg(test)]
            defects: crate::defect::Defects::none(),
        }
    }

    /// The same with hazards put back.
    #[cfg(test)]
    pub(crate) fn with_defects(self, defects: crate::defect::Defects) -> Self {
        Self { defects, ..self }
    }

    #[inline(always)]
    fn has(&self, defect: crate::defect::Defect) -> bool {
        #[cfg(test)]
        return self.defects.has(defect);
        #[cfg(not(test))]
        {
            let _ = defect;
            false
        }
    }

    /// Bytes of the longest packet, without its trailer, that a ring of `size` bytes takes.
    pub(crate) const fn longest(size: u32) -> u32 {
        // Room for the trailer, for the word that stays free, and for a host that counts that word as free.
        size - 32
    }

    /// Bytes free for packets and their trailers, by what the host was last seen to have read.
    fn free(&self) -> u32 {
        self.size - ahead(self.written, self.read, self.size) - 8
    }

    /// Looks how far the host has read.
    fn look(&mut self) -> Result<(), Breach> {
        let out = checked(self.memory.out(), self.size)?;
        if ahead(out, self.read, self.size) > ahead(self.published, self.read, self.size)
            && !self.has(crate::defect::Defect::TrustsOffsets)
        {
            return Err(Breach::ReadTooMuch);
        }
        self.read = out;
        Ok(())
    }

    /// Writes a packet of `bytes` bytes (a multiple of 8, without the trailer) behind those written before, unpublished.
    ///
    /// # Errors
    /// [`NoRoom`], with nothing written. [`NoRoom::Full`]: the host will signal when there is room, and [`Sender::has_room`] then says so.
    #[inline]
    pub(crate) fn write(&mut self, bytes: u32, fill: impl FnOnce(&mut Words<'_, M>)) -> Result<(), NoRoom> {
        if bytes > Self::longest(self.size) {
            return Err(NoRoom::TooLong);
        }
        let whole = bytes + TRAILER as u32;
        if self.free() < whole {
            self.look().map_err(NoRoom::Broken)?;
            if self.free() < whole && !self.wait(whole)? {
                return Err(NoRoom::Full);
            }
        }
        let start = self.written;
        let mut words = Words { memory: &self.memory, size: self.size, at: start, left: bytes };
        fill(&mut words);
        while words.left > 0 {
            words.put(0);
        }
        let end = words.at;
        // The trailer: zero, and where the packet began.
        self.memory.set_word(end, u64::from(start) << 32);
        self.written = moved(end, TRAILER as u32, self.size);
        Ok(())
    }

    /// Asks for room, and looks again: of a host that reads and a guest that asks, one sees the other. `true` if it has come already.
    #[cold]
    fn wait(&mut self, whole: u32) -> Result<bool, NoRoom> {
        self.pending = (whole + 8).max(self.size / 4).min(self.size - 24);
        self.memory.set_pending(self.pending);
        if !self.has(crate::defect::Defect::PendingUnfenced) {
            self.memory.full_fence();
        }
        if self.has(crate::defect::Defect::PendingUnseen) {
            return Ok(false);
        }
        self.look().map_err(NoRoom::Broken)?;
        if self.free() < whole {
            return Ok(false);
        }
        self.pending = 0;
        self.memory.set_pending(0);
        Ok(true)
    }

    /// Whether the host was asked for room, and it has not come.
    pub(crate) fn is_waiting(&self) -> bool {
        self.pending != 0
    }

    /// Whether room that was asked for has come; then the host is not asked any more.
    ///
    /// # Errors
    /// [`Breach`].
    pub(crate) fn has_room(&mut self) -> Result<bool, Breach> {
        if self.pending == 0 {
            return Ok(false);
        }
        self.look()?;
        if self.free() < self.pending - 8 {
            return Ok(false);
        }
        self.pending = 0;
        self.memory.set_pending(0);
        Ok(true)
    }

    /// Publishes what was written. `true`: the host is to be signalled.
    #[must_use]
    #[inline]
    pub(crate) fn publish(&mut self) -> bool {
        if self.published == self.written {
            return false;
        }
        let before = core::mem::replace(&mut self.published, self.written);
        self.memory.publish(self.written);
        if !self.has(crate::defect::Defect::PublishUnfenced) {
            self.memory.full_fence();
        }
        if self.has(crate::defect::Defect::SignalsAlways) {
            return true;
        }
        self.memory.mask() == 0 && self.memory.out() == before
    }
}
