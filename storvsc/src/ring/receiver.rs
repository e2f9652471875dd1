//! Packets from the host. See the module above for the rules.

use super::{Breach, ReceiverMemory, ahead, checked, moved};
use crate::wire::ring::{PacketFlags, PacketHeader, PacketType, TRAILER};

/// A packet at the head of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) kind: PacketType,
    pub(crate) flags: PacketFlags,
    pub(crate) transaction: u64,
    /// Where the payload begins, and its bytes: a multiple of 8.
    payload: u32,
    pub(crate) len: u32,
    /// Bytes of the whole, with the trailer.
    whole: u32,
}

/// The receiving side of a ring.
#[derive(Debug)]
pub(crate) struct Receiver<M> {
    memory: M,
    size: u32,
    /// How far was read, and of that looked at for a host that waits for room.
    read: u32,
    settled: u32,
    /// How far the host was seen to have written.
    there: u32,
    masked: bool,
    #[cfg(test)]
    defects: crate::defect::Defects,
}

impl<M: ReceiverMemory> Receiver<M> {
    /// An empty ring of `size` bytes; the memory is zero.
    pub(crate) fn new(memory: M, size: u32) -> Self {
        Self {
            memory,
            size,
            read: 0,
            settled: 0,
            there: 0,
            masked: false,
            #[cfg(test)]
            defects: crate::defect::Defects::none(),
        }
    }

    /// The same with hazards put back.
    #[cfg(test)]
    pub(crate) fn with_defects(self, defects: crate::defect::Defects) -> Self {
        Self { defects, ..self }
    }

    /// As if so much had been read before.
    #[cfg(test)]
    #[cfg_attr(loom, allow(dead_code, reason = "the tests under loom begin at the beginning"))]
    pub(crate) fn begin_at(&mut self, at: u32) {
        (self.read, self.settled, self.there) = (at, at, at);
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

    /// The packet at the head, if there is one.
    ///
    /// # Errors
    /// [`Breach`].
    #[inline]
    pub(crate) fn peek(&mut self) -> Result<Option<Packet>, Breach> {
        if self.read == self.there {
            self.there = checked(self.memory.written(), self.size)?;
        }
        let there = ahead(self.there, self.read, self.size);
        if there == 0 {
            return Ok(None);
        }
        if there < (size_of::<PacketHeader>() + TRAILER) as u32 {
            return Err(Breach::Packet);
        }
        let head = self.memory.word(self.read);
        let transaction = self.memory.word(moved(self.read, 8, self.size));
        let (payload, length) = (u32::from((head >> 16) as u16) * 8, u32::from((head >> 32) as u16) * 8);
        let whole = length + TRAILER as u32;
        let impossible = whole > there && !self.has(crate::defect::Defect::TrustsLength);
        if impossible || payload < size_of::<PacketHeader>() as u32 || payload > length {
            return Err(Breach::Packet);
        }
        Ok(Some(Packet {
            kind: PacketType(head as u16),
            flags: PacketFlags::from_bits_retain((head >> 48) as u16),
            transaction,
            payload: moved(self.read, payload % self.size, self.size),
            len: length - payload,
            whole,
        }))
    }

    /// Copies the beginning of a packet's payload out. What the packet has not is zero.
    #[inline]
    pub(crate) fn copy<const WORDS: usize>(&self, packet: &Packet) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        let mut at = packet.payload;
        for word in words.iter_mut().take(packet.len as usize / 8) {
            *word = self.memory.word(at);
            at = moved(at, 8, self.size);
        }
        words
    }

    /// Takes the packet at the head off the ring.
    #[inline]
    pub(crate) fn advance(&mut self, packet: &Packet) {
        self.read = moved(self.read, packet.whole % self.size, self.size);
        self.memory.set_out(self.read);
    }

    /// Ends a batch. `true`: the host waited for room and has it, and is to be signalled.
    ///
    /// # Errors
    /// [`Breach`].
    #[must_use = "the host may wait"]
    pub(crate) fn settle(&mut self) -> Result<bool, Breach> {
        let before = core::mem::replace(&mut self.settled, self.read);
        if before == self.read {
            return Ok(false);
        }
        if !self.has(crate::defect::Defect::SettleUnfenced) {
            self.memory.full_fence();
        }
        let wanted = self.memory.pending() & !7;
        if wanted == 0 {
            return Ok(false);
        }
        let written = checked(self.memory.written(), self.size)?;
        let free = |read| self.size - ahead(written, read, self.size) - 8;
        Ok(free(before) < wanted && free(self.read) >= wanted)
    }

    /// Tells the host that nothing need be signalled while packets are taken off.
    pub(crate) fn mask(&mut self) {
        if !core::mem::replace(&mut self.masked, true) {
            self.memory.set_mask(1);
        }
    }

    /// Asks for signals again, and looks once more: of a host that writes and a guest that rests, one sees the other. `false`: there is
    /// more, and signals are off again.
    ///
    /// # Errors
    /// [`Breach`].
    pub(crate) fn rest(&mut self) -> Result<bool, Breach> {
        self.masked = false;
        self.memory.set_mask(0);
        if self.has(crate::defect::Defect::RestsBlindly) {
            return Ok(true);
        }
        if !self.has(crate::defect::Defect::RestUnfenced) {
            self.memory.full_fence();
        }
        if checked(self.memory.written(), self.size)? == self.read {
            return Ok(true);
        }
        self.mask();
        Ok(false)
    }
}
