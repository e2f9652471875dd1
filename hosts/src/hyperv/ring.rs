//! The two rings of a channel, as the host uses them: it takes from one and sends in the other.
//!
//! Each end keeps its own index privately; what lies in the ring's control page is the other's to read. So a field that is the host's and has
//! another value than the host gave it was written by the guest.

use std::sync::atomic::{Ordering, fence};

use super::consts::PAGE;
use super::guest::{u16_at, u32_at, u64_at};
use super::{BadGpa, Breach, Guest};

/// Offsets in the control page.
mod field {
    pub const IN: u64 = 0;
    pub const OUT: u64 = 4;
    pub const MASK: u64 = 8;
    pub const PENDING_SEND: u64 = 12;
    pub const FEATURES: u64 = 64;
}

/// The sender understands the pending send size.
const UNDERSTANDS_PENDING: u32 = 1;
const HEADER: usize = 16;
const TRAILER: usize = 8;

/// A packet's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub kind: u16,
    pub flags: u16,
    pub transaction: u64,
    /// Between the header and the payload.
    pub extension: Vec<u8>,
    pub payload: Vec<u8>,
}

/// Where a ring lies.
#[derive(Debug, Clone)]
struct Place {
    pages: Vec<u64>,
    size: u32,
}

impl Place {
    fn new(pages: &[u64]) -> Self {
        Self { pages: pages.to_vec(), size: (pages.len() as u32 - 1) * PAGE as u32 }
    }

    fn field(&self, offset: u64) -> u64 {
        self.pages[0] * PAGE + offset
    }

    /// The address of an offset in the data area.
    fn at(&self, offset: u32) -> u64 {
        let offset = u64::from(offset % self.size);
        self.pages[1 + (offset / PAGE) as usize] * PAGE + offset % PAGE
    }

    fn read(&self, guest: &dyn Guest, offset: u32, into: &mut [u8]) -> Result<(), BadGpa> {
        // Offsets are multiples of 8, and so is a page: no word crosses one.
        for (word, chunk) in into.chunks_mut(8).enumerate() {
            guest.read(self.at(offset + word as u32 * 8), chunk)?;
        }
        Ok(())
    }

    fn write(&self, guest: &dyn Guest, offset: u32, bytes: &[u8]) -> Result<(), BadGpa> {
        for (word, chunk) in bytes.chunks(8).enumerate() {
            guest.write(self.at(offset + word as u32 * 8), chunk)?;
        }
        Ok(())
    }

    /// Write offset, read offset, interrupt mask and pending send size, by number.
    fn numbered(&self, number: u8) -> u64 {
        self.field([field::IN, field::OUT, field::MASK, field::PENDING_SEND][usize::from(number % 4)])
    }

    fn used(&self, published: u32, taken: u32) -> u32 {
        if published >= taken { published - taken } else { self.size - (taken - published) }
    }

    /// Bytes that may be written: a full ring would look empty.
    fn free(&self, published: u32, taken: u32) -> u32 {
        (self.size - self.used(published, taken)).saturating_sub(8)
    }
}

fn take(channel: u32, holds: bool, what: &'static str) -> Result<(), Breach> {
    if holds { Ok(()) } else { Err(Breach::Packet(channel, what)) }
}

/// Guest to host.
#[derive(Debug)]
pub(super) struct Incoming {
    place: Place,
    channel: u32,
    out: u32,
    mask: u32,
    seen_in: u32,
}

impl Incoming {
    /// Takes the ring over as the guest has initialised it.
    pub fn open(guest: &dyn Guest, channel: u32, pages: &[u64]) -> Result<Self, Breach> {
        let place = Place::new(pages);
        for (offset, right) in [(field::IN, 0), (field::OUT, 0), (field::MASK, 0), (field::PENDING_SEND, 0)] {
            if guest.load(place.field(offset))? != right {
                return Err(Breach::Open("a ring for the host that is not empty"));
            }
        }
        if guest.load(place.field(field::FEATURES))? & UNDERSTANDS_PENDING == 0 {
            return Err(Breach::Open("a ring for the host without its feature"));
        }
        Ok(Self { place, channel, out: 0, mask: 0, seen_in: 0 })
    }

    /// Overwrites a field.
    pub fn poke(&self, guest: &dyn Guest, field: u8, value: u32) -> Result<(), BadGpa> {
        guest.store(self.place.numbered(field), value)
    }

    /// Asks for signals, or not.
    pub fn set_mask(&mut self, guest: &dyn Guest, mask: bool) -> Result<(), BadGpa> {
        self.mask = u32::from(mask);
        guest.store(self.place.field(field::MASK), self.mask)?;
        // The mask before another look at the ring.
        fence(Ordering::SeqCst);
        Ok(())
    }

    pub fn masked(&self) -> bool {
        self.mask != 0
    }

    /// Checks that the guest left the host's fields alone, and its index.
    pub fn check(&mut self, guest: &dyn Guest) -> Result<u32, Breach> {
        if guest.load(self.place.field(field::OUT))? != self.out {
            return Err(Breach::HostsField(self.channel, "out of the ring for the host"));
        }
        if guest.load(self.place.field(field::MASK))? != self.mask {
            return Err(Breach::HostsField(self.channel, "interrupt mask of the ring for the host"));
        }
        let published = guest.load(self.place.field(field::IN))?;
        if published >= self.place.size || !published.is_multiple_of(8) {
            return Err(Breach::Ring(self.channel, "a write offset that cannot be"));
        }
        if self.place.used(published, self.out) < self.place.used(self.seen_in, self.out) {
            return Err(Breach::Ring(self.channel, "a write offset that went back"));
        }
        self.seen_in = published;
        Ok(published)
    }

    /// Whether there is something to take.
    pub fn waiting(&mut self, guest: &dyn Guest) -> Result<bool, Breach> {
        Ok(self.check(guest)? != self.out)
    }

    /// Takes the next packet. The flag says that the guest waits for room and has to be signalled.
    pub fn next(&mut self, guest: &dyn Guest) -> Result<Option<(Packet, bool)>, Breach> {
        let published = self.check(guest)?;
        let used = self.place.used(published, self.out) as usize;
        if used == 0 {
            return Ok(None);
        }
        let channel = self.channel;
        take(channel, used >= HEADER + TRAILER, "less than a header")?;
        let mut header = [0; HEADER];
        self.place.read(guest, self.out, &mut header)?;
        let offset = usize::from(u16_at(&header, 2)) * 8;
        let len = usize::from(u16_at(&header, 4)) * 8;
        take(channel, len >= HEADER && len + TRAILER <= used, "a length beyond what was published")?;
        take(channel, (HEADER..=len).contains(&offset), "a payload offset outside")?;
        let mut body = vec![0; len + TRAILER];
        self.place.read(guest, self.out, &mut body)?;
        take(channel, u32_at(&body, len) == 0, "a trailer whose first word is not zero")?;
        take(channel, u32_at(&body, len + 4) == self.out, "a trailer without the packet's place")?;
        let packet = Packet {
            kind: u16_at(&header, 0),
            flags: u16_at(&header, 6),
            transaction: u64_at(&header, 8),
            extension: body[HEADER..offset].to_vec(),
            payload: body[offset..len].to_vec(),
        };
        let before = self.place.free(published, self.out);
        self.out = (self.out + (len + TRAILER) as u32) % self.place.size;
        guest.store(self.place.field(field::OUT), self.out)?;
        fence(Ordering::SeqCst);
        let wants = guest.load(self.place.field(field::PENDING_SEND))? & !7;
        let after = self.place.free(published, self.out);
        Ok(Some((packet, wants != 0 && before < wants && after >= wants)))
    }
}

/// Host to guest.
#[derive(Debug)]
pub(super) struct Outgoing {
    place: Place,
    channel: u32,
    /// Where the next packet goes; the guest sees what is before `published`.
    written: u32,
    published: u32,
    pending: u32,
    seen_out: u32,
}

impl Outgoing {
    /// Takes the ring over as the guest has initialised it.
    pub fn open(guest: &dyn Guest, channel: u32, pages: &[u64]) -> Result<Self, Breach> {
        let place = Place::new(pages);
        for offset in [field::IN, field::OUT, field::PENDING_SEND] {
            if guest.load(place.field(offset))? != 0 {
                return Err(Breach::Open("a ring for the guest that is not empty"));
            }
        }
        guest.store(place.field(field::FEATURES), UNDERSTANDS_PENDING)?;
        Ok(Self { place, channel, written: 0, published: 0, pending: 0, seen_out: 0 })
    }

    /// What the guest has taken.
    fn taken(&mut self, guest: &dyn Guest) -> Result<u32, Breach> {
        for (offset, mine, what) in [
            (field::IN, self.published, "in of the ring for the guest"),
            (field::PENDING_SEND, self.pending, "pending send size of the ring for the guest"),
            (field::FEATURES, UNDERSTANDS_PENDING, "features of the ring for the guest"),
        ] {
            if guest.load(self.place.field(offset))? != mine {
                return Err(Breach::HostsField(self.channel, what));
            }
        }
        if guest.load(self.place.field(field::MASK))? > 1 {
            return Err(Breach::Ring(self.channel, "an interrupt mask that is neither 0 nor 1"));
        }
        let taken = guest.load(self.place.field(field::OUT))?;
        let possible = taken < self.place.size && taken.is_multiple_of(8);
        let (seen, now) = (self.seen_out, self.published);
        if !possible || self.place.used(taken, seen) > self.place.used(now, seen) {
            return Err(Breach::Ring(self.channel, "a read offset that cannot be"));
        }
        self.seen_out = taken;
        Ok(taken)
    }

    /// Checks the guest's fields and that it left the host's alone.
    pub fn check(&mut self, guest: &dyn Guest) -> Result<(), Breach> {
        self.taken(guest).map(|_| ())
    }

    /// Whether the host waits for room that there is now.
    pub fn room_came(&mut self, guest: &dyn Guest) -> Result<bool, Breach> {
        let taken = self.taken(guest)?;
        Ok(self.pending != 0 && self.place.free(self.written, taken) >= self.pending)
    }

    /// Whether the host waits for room.
    pub fn waits(&self) -> bool {
        self.pending != 0
    }

    /// Writes a packet, which nobody sees before [`Outgoing::publish`]: a batch that became visible by and by could not be told by one signal,
    /// because the guest may fall asleep in the middle. `None`: no room, and the guest was asked to tell when there is.
    pub fn put(&mut self, guest: &dyn Guest, packet: &[u8]) -> Result<Option<()>, Breach> {
        let mut whole = packet.to_vec();
        whole.extend((u64::from(self.written) << 32).to_le_bytes());
        let needed = whole.len() as u32;
        let mut taken = self.taken(guest)?;
        if self.place.free(self.written, taken) < needed {
            self.set_pending(guest, needed.max(self.place.size / 4))?;
            taken = self.taken(guest)?;
            if self.place.free(self.written, taken) < needed {
                return Ok(None);
            }
        }
        if self.pending != 0 {
            self.set_pending(guest, 0)?;
        }
        self.place.write(guest, self.written, &whole)?;
        self.written = (self.written + needed) % self.place.size;
        Ok(Some(()))
    }

    fn set_pending(&mut self, guest: &dyn Guest, size: u32) -> Result<(), BadGpa> {
        self.pending = size;
        guest.store(self.place.field(field::PENDING_SEND), size)?;
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Shows the guest a batch of packets. Whether it has to be told.
    pub fn publish(&mut self, guest: &dyn Guest) -> Result<bool, Breach> {
        if self.written == self.published {
            return Ok(false);
        }
        self.taken(guest)?;
        let before = std::mem::replace(&mut self.published, self.written);
        guest.store(self.place.field(field::IN), self.published)?;
        fence(Ordering::SeqCst);
        let taken = self.taken(guest)?;
        Ok(guest.load(self.place.field(field::MASK))? == 0 && taken == before)
    }

    /// Overwrites a field.
    pub fn poke(&self, guest: &dyn Guest, field: u8, value: u32) -> Result<(), BadGpa> {
        guest.store(self.place.numbered(field), value)
    }

    /// Writes a wrong write offset.
    pub fn lie(&mut self, guest: &dyn Guest, offset: u32) -> Result<(), BadGpa> {
        guest.store(self.place.field(field::IN), offset)
    }
}
