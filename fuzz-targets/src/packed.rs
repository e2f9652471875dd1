//! A packed ring between a driver that keeps to its contract and a device that writes what the input says.
//!
//! As the split one's, by virtio 1.2, 2.8: until the device's first lie everything must be right, after it nothing that is not in flight comes back.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use undercroft_virtio::queue::{AddError, Buffer, Packed, PackedMemory};
use undercroft_virtio::wire::ring::packed::{AVAIL, PackedDescriptor, USED};
use undercroft_virtio::wire::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE};

use crate::Bytes;

/// Where tables of chains lie, as device addresses.
const TABLES: u64 = 0x10_0000;

#[derive(Debug, Clone, Copy, Default)]
struct Descriptor {
    addr: u64,
    len: u32,
    id: u16,
    flags: u16,
}

struct Plain {
    descriptors: RefCell<Vec<Descriptor>>,
    tables: RefCell<Vec<Descriptor>>,
    table_len: u16,
    device_event: Cell<(u16, u16)>,
}

/// The memory, as the ring has it.
#[derive(Clone)]
struct Memory(Rc<Plain>);

impl PackedMemory for Memory {
    fn set_descriptor(&self, index: u16, addr: u64, len: u32, id: u16) {
        let at = &mut self.0.descriptors.borrow_mut()[usize::from(index)];
        *at = Descriptor { addr, len, id, flags: at.flags };
    }
    fn set_flags(&self, index: u16, flags: u16) {
        self.0.descriptors.borrow_mut()[usize::from(index)].flags = flags;
    }
    fn publish(&self, index: u16, flags: u16) {
        self.set_flags(index, flags);
    }
    fn flags(&self, index: u16) -> u16 {
        self.0.descriptors.borrow()[usize::from(index)].flags
    }
    fn used(&self, index: u16) -> (u16, u32) {
        let descriptor = self.0.descriptors.borrow()[usize::from(index)];
        (descriptor.id, descriptor.len)
    }
    fn set_indirect(&self, id: u16, index: u16, descriptor: PackedDescriptor) {
        assert!(index < self.0.table_len, "a table is overrun");
        let at = usize::from(id) * usize::from(self.0.table_len) + usize::from(index);
        let PackedDescriptor { addr, len, id, flags } = descriptor;
        let plain = Descriptor { addr: addr.get(), len: len.get(), id: id.get(), flags: flags.get() };
        self.0.tables.borrow_mut()[at] = plain;
    }
    fn table_addr(&self, id: u16) -> u64 {
        TABLES + 16 * u64::from(id) * u64::from(self.0.table_len)
    }
    fn table_len(&self) -> u16 {
        self.0.table_len
    }
    fn set_driver_event(&self, _at: u16, _how: u16) {}
    fn device_event(&self) -> (u16, u16) {
        self.0.device_event.get()
    }
    fn full_fence(&self) {}
    fn clear(&self) {
        self.0.descriptors.borrow_mut().fill(Descriptor::default());
        self.0.device_event.set((0, 0));
    }
}

/// A place in the ring, and on which lap.
#[derive(Clone, Copy)]
struct Place {
    index: u16,
    wrap: bool,
}

impl Place {
    const FIRST: Self = Self { index: 0, wrap: true };

    const fn further(self, by: u16, size: u16) -> Self {
        let index = self.index + by;
        if index >= size { Self { index: index - size, wrap: !self.wrap } } else { Self { index, ..self } }
    }
}

struct Pair {
    ring: Packed<Memory>,
    plain: Rc<Plain>,
    size: u16,
    /// What the driver gave and has not got back, by the chain's name, and the places that it takes.
    flying: BTreeMap<u16, Vec<Buffer>>,
    /// Where the device looks next, and where it answers next.
    looks: Place,
    answers: Place,
    taken: VecDeque<(u16, u16)>,
    answered: VecDeque<(u16, u32)>,
    lied: bool,
}

fn room(buffers: &[Buffer]) -> u32 {
    buffers.iter().filter(|buffer| buffer.writable).map(|buffer| buffer.len).sum()
}

impl Pair {
    fn new(size: u16, table_len: u16, event_idx: bool) -> Option<Self> {
        let n = usize::from(size);
        let plain = Rc::new(Plain {
            descriptors: vec![Descriptor::default(); n].into(),
            tables: vec![Descriptor::default(); n * usize::from(table_len)].into(),
            table_len,
            device_event: Cell::default(),
        });
        let ring = Packed::new(Memory(Rc::clone(&plain)), size, event_idx)?;
        let (flying, taken, answered) = (BTreeMap::new(), VecDeque::new(), VecDeque::new());
        let (looks, answers) = (Place::FIRST, Place::FIRST);
        Some(Self { ring, plain, size, flying, looks, answers, taken, answered, lied: false })
    }

    fn add(&mut self, how: u8, len: u8) {
        let (count, readable) = (how % 8, how / 8 % 8);
        let buffers: Vec<Buffer> = (0..count)
            .map(|at| Buffer {
                addr: 0x1000 * u64::from(at),
                len: u32::from(len) + 1 + u32::from(at),
                writable: at >= readable,
            })
            .collect();
        let mut chain = match self.ring.chain(u16::from(count)) {
            Ok(chain) => chain,
            Err(AddError::Broken(_)) => return assert!(self.lied, "broken by an honest device"),
            Err(_) => return,
        };
        let given = if how & 0x80 != 0 { buffers.len() / 2 } else { buffers.len() };
        buffers[..given].iter().for_each(|buffer| chain.push(*buffer));
        let Ok(id) = chain.finish() else { return };
        assert_eq!(given, buffers.len(), "a chain that is shorter than was said");
        assert!(self.flying.insert(id, buffers).is_none(), "two chains have one name: {id}");
    }

    fn available(&self, place: Place) -> bool {
        let flags = self.plain.descriptors.borrow()[usize::from(place.index)].flags;
        (flags & AVAIL != 0) == place.wrap && (flags & USED != 0) != place.wrap
    }

    /// The device takes all chains that are available.
    fn take(&mut self) {
        while !self.lied && self.available(self.looks) {
            let (mut buffers, mut places) = (Vec::new(), 0);
            let id = loop {
                let at = self.looks.further(places, self.size);
                assert!(places == 0 || self.available(at), "a chain of which a part is not available");
                let descriptor = self.plain.descriptors.borrow()[usize::from(at.index)];
                let buffer = |d: &Descriptor| Buffer { addr: d.addr, len: d.len, writable: d.flags & DESC_WRITE != 0 };
                places += 1;
                assert!(places <= self.size, "a chain without end");
                if descriptor.flags & DESC_INDIRECT != 0 {
                    let from = ((descriptor.addr - TABLES) / 16) as usize;
                    let table = &self.plain.tables.borrow()[from..from + descriptor.len as usize / 16];
                    buffers.extend(table.iter().map(buffer));
                } else {
                    buffers.push(buffer(&descriptor));
                }
                if descriptor.flags & DESC_NEXT == 0 {
                    break descriptor.id;
                }
            };
            assert_eq!(Some(&buffers), self.flying.get(&id), "chain {id} is not what was given");
            self.taken.push_back((id, places));
            self.looks = self.looks.further(places, self.size);
        }
    }

    fn write_used(&mut self, id: u16, len: u32, places: u16) {
        let flags = if self.answers.wrap { AVAIL | USED } else { 0 };
        let at = usize::from(self.answers.index);
        let before = self.plain.descriptors.borrow()[at];
        self.plain.descriptors.borrow_mut()[at] = Descriptor { id, len, flags, ..before };
        self.answers = self.answers.further(places.clamp(1, self.size), self.size);
    }

    fn answer(&mut self, which: u8, len: u8) {
        self.take();
        let Some((id, places)) = self.taken.remove(usize::from(which) % self.taken.len().max(1)) else { return };
        let most = self.flying.get(&id).map_or(0, |buffers| room(buffers));
        let len = u32::from(len).min(most);
        self.write_used(id, len, places);
        self.answered.push_back((id, len));
    }

    fn pop(&mut self) {
        match self.ring.pop() {
            Ok(Some(used)) => {
                let buffers = self.flying.remove(&used.head).expect("a chain came back that was not in flight");
                assert!(used.len <= room(&buffers), "more bytes than there was room for");
                if !self.lied {
                    assert_eq!(self.answered.pop_front(), Some((used.head, used.len)), "another answer than was given");
                }
            }
            Ok(None) => assert!(self.lied || self.answered.is_empty(), "an answer is not seen"),
            Err(error) => {
                assert!(self.lied, "broken by an honest device: {error:?}");
                assert_eq!(self.ring.pop(), Err(error), "a broken ring recovers");
                assert!(matches!(self.ring.chain(1), Err(AddError::Broken(_))), "a broken ring takes chains");
            }
        }
    }

    fn lie(&mut self, what: u8, value: u16) {
        self.lied = true;
        match what % 4 {
            0 => self.write_used(value, u32::from(value) * 7, 1 + value % 3),
            1 => self.write_used(value % self.size, u32::MAX - u32::from(value), 1),
            2 => {
                let at = usize::from(value % self.size);
                self.plain.descriptors.borrow_mut()[at].flags = if value & 0x100 == 0 { 0 } else { AVAIL | USED };
            }
            _ => {
                let (id, places) = self.taken.front().copied().unwrap_or((value % self.size, 1));
                self.write_used(id, u32::from(value), places);
            }
        }
    }

    fn restart(&mut self) {
        self.ring.restart();
        self.flying.clear();
        self.taken.clear();
        self.answered.clear();
        (self.looks, self.answers, self.lied) = (Place::FIRST, Place::FIRST, false);
    }
}

/// A script for a driver and a device with a packed ring between them.
///
/// # Panics
/// As [`crate::virtqueue_split`].
pub fn virtqueue_packed(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let shape = bytes.u8();
    let (size, table_len) = (1 + u16::from(shape % 17), [0, 4][usize::from(shape >> 5 & 1)]);
    let Some(mut pair) = Pair::new(size, table_len, shape & 0x80 != 0) else { return };
    while !bytes.is_empty() {
        let (what, one, two) = (bytes.u8(), bytes.u8(), bytes.u16());
        match what % 16 {
            0..4 => pair.add(one, two as u8),
            4 | 5 => _ = pair.ring.publish(),
            6..9 => pair.answer(one, two as u8),
            9..12 => pair.pop(),
            12 => {
                if one & 1 == 0 {
                    pair.ring.disable_interrupts();
                } else {
                    let more = pair.ring.enable_interrupts();
                    assert!(pair.lied || more != pair.answered.is_empty(), "answers are overlooked, or made up");
                }
            }
            13 => pair.plain.device_event.set((two, u16::from(one))),
            14 if one < 64 => pair.restart(),
            14 => _ = pair.ring.was_told(two),
            _ => pair.lie(one, two),
        }
        let flying = pair.flying.len();
        assert!(pair.lied || usize::from(pair.ring.in_flight()) == flying, "chains are lost");
        assert!(usize::from(pair.ring.free()) + flying <= usize::from(size), "places are counted twice");
    }
    while !pair.lied && !pair.flying.is_empty() {
        _ = pair.ring.publish();
        pair.answer(0, 0);
        pair.pop();
    }
    assert!(pair.lied || pair.ring.free() == size, "places are lost");
}
