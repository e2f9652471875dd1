//! The device's side of a packed virtqueue (virtio 1.2, 2.8). Places are counted from the start without end; the place in the ring is the
//! rest of the division by its size, and the wrap counter is 1 in every even lap.

use super::Breach;
use super::queue::{Buffer, Chain, Negotiated};
use crate::Bus;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAILABLE: u16 = 0x80;
const USED: u16 = 0x8000;

const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const AT_DESCRIPTOR: u16 = 2;

/// The state of a queue's packed ring.
#[derive(Debug, Clone, Default)]
pub(super) struct Packed {
    pub number: u16,
    pub size: u16,
    pub ring: u64,
    /// What the driver wants to hear.
    pub driver_event: u64,
    /// What the device wants to hear.
    pub device_event: u64,
    taken: u64,
    used: u64,
    signalled: u64,
    /// Ids that the device has.
    busy: Vec<bool>,
}

struct Descriptor {
    addr: u64,
    len: u32,
    id: u16,
    flags: u16,
}

impl Packed {
    pub fn new(number: u16, size: u16, [ring, driver_event, device_event]: [u64; 3]) -> Self {
        let busy = vec![false; usize::from(size)];
        Self { number, size, ring, driver_event, device_event, busy, ..Self::default() }
    }

    fn descriptor(bus: &Bus<'_>, table: u64, index: u64) -> Result<Descriptor, Breach> {
        let b: [u8; 16] = bus.read_array(table.wrapping_add(16 * index))?;
        Ok(Descriptor {
            addr: u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            len: u32::from_le_bytes([b[8], b[9], b[10], b[11]]),
            id: u16::from_le_bytes([b[12], b[13]]),
            flags: u16::from_le_bytes([b[14], b[15]]),
        })
    }

    fn size(&self) -> u64 {
        u64::from(self.size)
    }

    fn even_lap(&self, place: u64) -> bool {
        (place / self.size()).is_multiple_of(2)
    }

    fn at(&self, bus: &Bus<'_>, place: u64) -> Result<Descriptor, Breach> {
        Self::descriptor(bus, self.ring, place % self.size())
    }

    /// Whether the descriptor at a place was made available in the lap of that place.
    fn is_available(&self, descriptor: &Descriptor, place: u64) -> bool {
        let (available, used) = (descriptor.flags & AVAILABLE != 0, descriptor.flags & USED != 0);
        available != used && available == self.even_lap(place)
    }

    pub fn waiting(&self, bus: &Bus<'_>) -> Result<u16, Breach> {
        // All of the ring is the device's: what the next place shows is a descriptor that it has taken.
        if self.taken.saturating_sub(self.used) >= self.size() {
            return Ok(0);
        }
        Ok(u16::from(self.is_available(&self.at(bus, self.taken)?, self.taken)))
    }

    pub fn quiet(&self, bus: &Bus<'_>) -> Result<(), Breach> {
        Ok(bus.write_u16(self.device_event.wrapping_add(2), DISABLE)?)
    }

    fn event(&self, place: u64) -> u16 {
        let wrap = if self.even_lap(place) { 0x8000 } else { 0 };
        (place % self.size()) as u16 | wrap
    }

    pub fn rearm(&self, bus: &Bus<'_>, negotiated: Negotiated) -> Result<bool, Breach> {
        bus.write_u16(self.device_event, self.event(self.taken))?;
        let how = if negotiated.event_idx { AT_DESCRIPTOR } else { ENABLE };
        bus.write_u16(self.device_event.wrapping_add(2), how)?;
        Ok(self.waiting(bus)? > 0)
    }

    pub fn fetch(&mut self, bus: &Bus<'_>, negotiated: Negotiated) -> Result<Option<Chain>, Breach> {
        if self.waiting(bus)? == 0 {
            return Ok(None);
        }
        let n = self.number;
        let mut chain = Chain::default();
        let (mut place, mut last);
        place = self.taken;
        loop {
            if place - self.taken >= self.size() {
                return Err(Breach::ChainTooLong(n));
            }
            let descriptor = self.at(bus, place)?;
            if !self.is_available(&descriptor, place) {
                return Err(Breach::PackedChainTorn(n));
            }
            place += 1;
            last = descriptor.id;
            if descriptor.flags & INDIRECT != 0 {
                if !negotiated.indirect {
                    return Err(Breach::IndirectNotNegotiated(n));
                }
                if descriptor.flags & NEXT != 0 || chain.places > 0 {
                    return Err(Breach::IndirectWithNext(n));
                }
                if descriptor.len == 0 || descriptor.len % 16 != 0 {
                    return Err(Breach::IndirectLength(n, descriptor.len));
                }
                chain.indirect = true;
                for index in 0..u64::from(descriptor.len / 16) {
                    let entry = Self::descriptor(bus, descriptor.addr, index)?;
                    if entry.flags & !WRITE != 0 {
                        return Err(Breach::DescriptorFlags(n, entry.flags));
                    }
                    self.add(&mut chain, &entry)?;
                }
                chain.places = 1;
                break;
            }
            self.add(&mut chain, &descriptor)?;
            chain.places += 1;
            if descriptor.flags & NEXT == 0 {
                break;
            }
        }
        chain.head = last;
        match self.busy.get_mut(usize::from(last)) {
            None => return Err(Breach::HeadOutOfRange(n, last)),
            Some(true) => return Err(Breach::DescriptorBusy(n, last)),
            Some(busy) => *busy = true,
        }
        self.taken = place;
        Ok(Some(chain))
    }

    fn add(&self, chain: &mut Chain, descriptor: &Descriptor) -> Result<(), Breach> {
        if descriptor.flags & !(NEXT | WRITE | AVAILABLE | USED) != 0 {
            return Err(Breach::DescriptorFlags(self.number, descriptor.flags));
        }
        let writable = descriptor.flags & WRITE != 0;
        if !writable && chain.buffers.last().is_some_and(|before| before.writable) {
            return Err(Breach::ReadableAfterWritable(self.number));
        }
        chain.buffers.push(Buffer { addr: descriptor.addr, len: descriptor.len, writable });
        Ok(())
    }

    pub fn release(&mut self, chain: &Chain) {
        if let Some(busy) = self.busy.get_mut(usize::from(chain.head)) {
            *busy = false;
        }
    }

    /// Writes a used descriptor and goes on by the places of its chain.
    pub fn push(&mut self, bus: &Bus<'_>, id: u32, len: u32, places: u16) -> Result<(), Breach> {
        let at = self.ring.wrapping_add(16 * (self.used % self.size()));
        bus.write(at.wrapping_add(8), &len.to_le_bytes())?;
        bus.write_u16(at.wrapping_add(12), id as u16)?;
        self.mark(bus)?;
        self.used += u64::from(places);
        Ok(())
    }

    fn mark(&self, bus: &Bus<'_>) -> Result<(), Breach> {
        let flags = if self.even_lap(self.used) { AVAILABLE | USED } else { 0 };
        Ok(bus.write_u16(self.ring.wrapping_add(16 * (self.used % self.size()) + 14), flags)?)
    }

    /// A lie: places are used that nothing was said of.
    pub fn mark_more(&mut self, bus: &Bus<'_>, by: u16) -> Result<(), Breach> {
        for _ in 0..by.min(self.size) {
            self.mark(bus)?;
            self.used += 1;
        }
        Ok(())
    }

    pub fn unsignalled(&self) -> bool {
        self.used != self.signalled
    }

    pub fn wants_interrupt(&mut self, bus: &Bus<'_>) -> Result<bool, Breach> {
        let passed = std::mem::replace(&mut self.signalled, self.used)..self.used;
        let event = bus.read_u16(self.driver_event)?;
        Ok(match bus.read_u16(self.driver_event.wrapping_add(2))? {
            ENABLE => true,
            DISABLE => false,
            AT_DESCRIPTOR => passed.into_iter().any(|place| self.event(place) == event),
            other => return Err(Breach::AvailFlags(self.number, other)),
        })
    }

    pub fn idle_descriptor(&self) -> Option<u16> {
        self.busy.iter().position(|busy| !busy).map(|at| at as u16)
    }
}
