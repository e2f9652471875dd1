//! The device's side of a virtqueue: split (virtio 1.2, 2.7), or handed on to [`super::packed`].

use super::Breach;
use super::consts::MAX_QUEUE;
use super::packed::Packed;
use crate::Bus;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const DESCRIPTOR: u64 = 16;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;

/// Which ring features the driver accepted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Negotiated {
    pub indirect: bool,
    pub event_idx: bool,
    pub packed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Descriptor {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// A run of guest memory in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Device address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// Whether the device may write it (else it may read it).
    pub writable: bool,
}

/// What the driver made available: a chain of buffers, as the device read it, once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// The index of its first descriptor, or its buffer id: the id to give back.
    pub head: u16,
    /// Its buffers, readable ones first.
    pub buffers: Vec<Buffer>,
    /// Whether it came through an indirect table.
    pub indirect: bool,
    /// The descriptors in the queue's own table.
    slots: Vec<(u16, Descriptor)>,
    /// Descriptors of a packed ring that it takes.
    pub(super) places: u16,
}

impl Chain {
    /// Bytes that the device may read.
    pub fn readable(&self) -> u64 {
        self.buffers.iter().filter(|buffer| !buffer.writable).map(|buffer| u64::from(buffer.len)).sum()
    }

    /// Bytes that the device may write.
    pub fn writable(&self) -> u64 {
        self.buffers.iter().filter(|buffer| buffer.writable).map(|buffer| u64::from(buffer.len)).sum()
    }
}

/// Whether an index that moved from `old` to `new` passed `event` (2.7.10.1): in a window modulo 2^16, so in 16 bits.
const fn passed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// One queue.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    pub number: u16,
    pub max: u16,
    pub size: u16,
    pub vector: u16,
    pub enabled: bool,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    /// The driver notified us, or we are not done with what it notified us of.
    pub active: bool,
    last_avail: u16,
    used_idx: u16,
    /// The used index at the last decision about an interrupt.
    signalled: u16,
    /// Which descriptors the device owns.
    busy: Vec<bool>,
    /// Present if the ring is packed.
    packed: Option<Packed>,
}

impl Queue {
    pub fn new(number: u16, max: u16) -> Self {
        Self { number, max, size: max, vector: super::consts::NO_VECTOR, ..Self::default() }
    }

    /// Takes the queue into use.
    pub fn enable(&mut self, negotiated: Negotiated) -> Result<(), Breach> {
        if negotiated.packed {
            let (aligned, addresses) = (self.avail.is_multiple_of(4), [self.desc, self.avail, self.used]);
            if !self.desc.is_multiple_of(16) || !aligned || !self.used.is_multiple_of(4) {
                return Err(Breach::RingAlignment(self.number));
            }
            self.packed = Some(Packed::new(self.number, self.size, addresses));
            self.enabled = true;
            return Ok(());
        }
        if self.size == 0 || !self.size.is_power_of_two() || self.size > self.max.min(MAX_QUEUE) {
            return Err(Breach::QueueSize(self.number, self.size));
        }
        if !self.desc.is_multiple_of(16) || !self.avail.is_multiple_of(2) || !self.used.is_multiple_of(4) {
            return Err(Breach::RingAlignment(self.number));
        }
        self.busy = vec![false; usize::from(self.size)];
        self.enabled = true;
        Ok(())
    }

    fn used_event(&self, bus: &Bus<'_>) -> Result<u16, Breach> {
        Ok(bus.read_u16(self.avail.wrapping_add(4 + 2 * u64::from(self.size)))?)
    }

    fn avail_idx(&self, bus: &Bus<'_>) -> Result<u16, Breach> {
        Ok(bus.read_u16(self.avail.wrapping_add(2))?)
    }

    /// How many chains the driver has published that the device has not taken.
    pub fn waiting(&self, bus: &Bus<'_>) -> Result<u16, Breach> {
        if let Some(packed) = &self.packed {
            return packed.waiting(bus);
        }
        let waiting = self.avail_idx(bus)?.wrapping_sub(self.last_avail);
        if waiting > self.size { Err(Breach::AvailJump(self.number)) } else { Ok(waiting) }
    }

    /// Asks the driver not to notify, while the device looks anyway.
    pub fn quiet(&self, bus: &Bus<'_>, negotiated: Negotiated) -> Result<(), Breach> {
        if let Some(packed) = &self.packed {
            return packed.quiet(bus);
        }
        // With EVENT_IDX an avail_event that is left behind does the same.
        if !negotiated.event_idx {
            bus.write_u16(self.used, NO_NOTIFY)?;
        }
        Ok(())
    }

    /// Asks to be notified of the next chain. Returns whether more had come by then, so that the device must go on.
    pub fn rearm(&self, bus: &Bus<'_>, negotiated: Negotiated) -> Result<bool, Breach> {
        if let Some(packed) = &self.packed {
            return packed.rearm(bus, negotiated);
        }
        if negotiated.event_idx {
            bus.write_u16(self.used.wrapping_add(4 + 8 * u64::from(self.size)), self.last_avail)?;
        } else {
            bus.write_u16(self.used, 0)?;
        }
        Ok(self.waiting(bus)? > 0)
    }

    /// Takes the next chain, if there is one.
    pub fn fetch(&mut self, bus: &Bus<'_>, negotiated: Negotiated) -> Result<Option<Chain>, Breach> {
        if let Some(packed) = &mut self.packed {
            return packed.fetch(bus, negotiated);
        }
        if self.waiting(bus)? == 0 {
            return Ok(None);
        }
        let flags = bus.read_u16(self.avail)?;
        if flags & !NO_INTERRUPT != 0 || negotiated.event_idx && flags != 0 {
            return Err(Breach::AvailFlags(self.number, flags));
        }
        let head = bus.read_u16(self.avail.wrapping_add(4 + 2 * u64::from(self.last_avail % self.size)))?;
        if head >= self.size {
            return Err(Breach::HeadOutOfRange(self.number, head));
        }
        let chain = self.walk(bus, negotiated, head)?;
        for (slot, _) in &chain.slots {
            self.busy[usize::from(*slot)] = true;
        }
        self.last_avail = self.last_avail.wrapping_add(1);
        Ok(Some(chain))
    }

    fn descriptor(bus: &Bus<'_>, table: u64, index: u16) -> Result<Descriptor, Breach> {
        let b: [u8; 16] = bus.read_array(table.wrapping_add(DESCRIPTOR * u64::from(index)))?;
        Ok(Descriptor {
            addr: u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            len: u32::from_le_bytes([b[8], b[9], b[10], b[11]]),
            flags: u16::from_le_bytes([b[12], b[13]]),
            next: u16::from_le_bytes([b[14], b[15]]),
        })
    }

    fn walk(&self, bus: &Bus<'_>, negotiated: Negotiated, head: u16) -> Result<Chain, Breach> {
        let n = self.number;
        let mut chain = Chain { head, ..Chain::default() };
        let mut at = head;
        loop {
            if chain.slots.len() >= usize::from(self.size) {
                return Err(Breach::ChainTooLong(n));
            }
            if self.busy[usize::from(at)] {
                return Err(Breach::DescriptorBusy(n, at));
            }
            let descriptor = Self::descriptor(bus, self.desc, at)?;
            chain.slots.push((at, descriptor));
            if descriptor.flags & INDIRECT != 0 {
                if !negotiated.indirect {
                    return Err(Breach::IndirectNotNegotiated(n));
                }
                if descriptor.flags & NEXT != 0 {
                    return Err(Breach::IndirectWithNext(n));
                }
                chain.indirect = true;
                self.walk_indirect(bus, descriptor, &mut chain)?;
                break;
            }
            self.add(&mut chain, descriptor)?;
            if descriptor.flags & NEXT == 0 {
                break;
            }
            at = descriptor.next;
            if at >= self.size {
                return Err(Breach::NextOutOfRange(n, at));
            }
        }
        if chain.readable() + chain.writable() > 1 << 32 {
            return Err(Breach::ChainTooBig(n));
        }
        Ok(chain)
    }

    fn walk_indirect(&self, bus: &Bus<'_>, table: Descriptor, chain: &mut Chain) -> Result<(), Breach> {
        let n = self.number;
        if table.len == 0 || u64::from(table.len) % DESCRIPTOR != 0 {
            return Err(Breach::IndirectLength(n, table.len));
        }
        let entries = u64::from(table.len) / DESCRIPTOR;
        let mut at = 0;
        loop {
            if chain.buffers.len() + chain.slots.len() > usize::from(self.size) {
                return Err(Breach::ChainTooLong(n));
            }
            let descriptor = Self::descriptor(bus, table.addr, at)?;
            if descriptor.flags & INDIRECT != 0 {
                return Err(Breach::IndirectNested(n));
            }
            self.add(chain, descriptor)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(());
            }
            at = descriptor.next;
            if u64::from(at) >= entries {
                return Err(Breach::NextOutOfRange(n, at));
            }
        }
    }

    fn add(&self, chain: &mut Chain, descriptor: Descriptor) -> Result<(), Breach> {
        if descriptor.flags & !(NEXT | WRITE | INDIRECT) != 0 {
            return Err(Breach::DescriptorFlags(self.number, descriptor.flags));
        }
        let writable = descriptor.flags & WRITE != 0;
        if !writable && chain.buffers.last().is_some_and(|before| before.writable) {
            return Err(Breach::ReadableAfterWritable(self.number));
        }
        chain.buffers.push(Buffer { addr: descriptor.addr, len: descriptor.len, writable });
        Ok(())
    }

    /// The first descriptor of the chain, if any, that is not what it was when the device took the chain.
    pub fn changed(&self, bus: &Bus<'_>, chain: &Chain) -> Result<Option<u16>, Breach> {
        for &(slot, taken) in &chain.slots {
            if Self::descriptor(bus, self.desc, slot)? != taken {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// The device gives the chain's descriptors back.
    pub fn release(&mut self, chain: &Chain) {
        if let Some(packed) = &mut self.packed {
            return packed.release(chain);
        }
        for (slot, _) in &chain.slots {
            self.busy[usize::from(*slot)] = false;
        }
    }

    /// Writes a used entry and publishes it. In a packed ring it stands for `places` descriptors.
    pub fn push(&mut self, bus: &Bus<'_>, id: u32, len: u32, places: u16) -> Result<(), Breach> {
        if let Some(packed) = &mut self.packed {
            return packed.push(bus, id, len, places);
        }
        let at = self.used.wrapping_add(4 + 8 * u64::from(self.used_idx % self.size));
        bus.write(at, &id.to_le_bytes())?;
        bus.write(at.wrapping_add(4), &len.to_le_bytes())?;
        self.publish(bus, 1)
    }

    /// Moves the used index.
    pub fn publish(&mut self, bus: &Bus<'_>, by: u16) -> Result<(), Breach> {
        if let Some(packed) = &mut self.packed {
            return packed.mark_more(bus, by);
        }
        self.used_idx = self.used_idx.wrapping_add(by);
        Ok(bus.write_u16(self.used.wrapping_add(2), self.used_idx)?)
    }

    /// Whether used entries were published since the last decision about an interrupt.
    pub fn unsignalled(&self) -> bool {
        if let Some(packed) = &self.packed {
            return packed.unsignalled();
        }
        self.used_idx != self.signalled
    }

    /// Decides whether what was published since the last time needs an interrupt (2.7.7, 2.7.10).
    pub fn wants_interrupt(&mut self, bus: &Bus<'_>, negotiated: Negotiated) -> Result<bool, Breach> {
        if let Some(packed) = &mut self.packed {
            return packed.wants_interrupt(bus);
        }
        let (old, new) = (self.signalled, self.used_idx);
        self.signalled = new;
        if negotiated.event_idx {
            let event = self.used_event(bus)?;
            return Ok(passed(event, old, new));
        }
        Ok(bus.read_u16(self.avail)? & NO_INTERRUPT == 0)
    }

    /// A descriptor that the device does not own, if there is one.
    pub fn idle_descriptor(&self) -> Option<u16> {
        if let Some(packed) = &self.packed {
            return packed.idle_descriptor();
        }
        self.busy.iter().position(|busy| !busy).map(|at| at as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::passed;

    /// Counts from `old` to `new`: does `event` lie on the way? Compared for every event and every batch of 1 to 7, at each old index.
    fn mistakes(passed: impl Fn(u16, u16, u16) -> bool) -> u32 {
        let mut mistakes = 0;
        for old in 0..=u16::MAX {
            let batch = old % 7 + 1;
            let new = old.wrapping_add(batch);
            for near in 0..24 {
                let event = old.wrapping_add(near).wrapping_sub(8);
                let on_the_way = (0..batch).any(|step| old.wrapping_add(step) == event);
                mistakes += u32::from(passed(event, old, new) != on_the_way);
            }
        }
        mistakes
    }

    #[test]
    fn x03_event_idx_window() {
        assert_eq!(mistakes(passed), 0);
    }

    #[test]
    fn x03_event_idx_window_control() {
        // Computed in a wider integer, it goes wrong at the wrap.
        assert!(
            mistakes(|event, old, new| i32::from(new) - i32::from(event) - 1 < i32::from(new) - i32::from(old)) > 0
        );
        assert!(mistakes(|event, _, new| new > event) > 0);
    }
}
