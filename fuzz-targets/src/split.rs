//! A split ring between a driver that keeps to its contract and a device that writes what the input says.
//!
//! Each four bytes are something to do. Until the device's first lie everything must be as virtio 1.2, 2.7 says; after it the ring still returns
//! only what is in flight, once, with no more bytes than there was room for, or breaks for good.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use undercroft_virtio::queue::{AddError, Buffer, RingMemory, Split};
use undercroft_virtio::wire::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor, UsedElement};

use crate::Bytes;

/// Where tables of chains lie, as device addresses.
const TABLES: u64 = 0x10_0000;

struct Plain {
    descriptors: RefCell<Vec<Descriptor>>,
    tables: RefCell<Vec<Descriptor>>,
    table_len: u16,
    available: RefCell<Vec<u16>>,
    available_index: Cell<u16>,
    used: RefCell<Vec<(u32, u32)>>,
    used_index: Cell<u16>,
    used_flags: Cell<u16>,
    available_event: Cell<u16>,
}

/// The memory, as the ring has it.
#[derive(Clone)]
struct Memory(Rc<Plain>);

impl RingMemory for Memory {
    fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        self.0.descriptors.borrow_mut()[usize::from(index)] = descriptor;
    }
    fn set_indirect(&self, head: u16, index: u16, descriptor: Descriptor) {
        assert!(index < self.0.table_len, "a table is overrun");
        let at = usize::from(head) * usize::from(self.0.table_len) + usize::from(index);
        self.0.tables.borrow_mut()[at] = descriptor;
    }
    fn table_addr(&self, head: u16) -> u64 {
        TABLES + 16 * u64::from(head) * u64::from(self.0.table_len)
    }
    fn table_len(&self) -> u16 {
        self.0.table_len
    }
    fn set_available(&self, entry: u16, head: u16) {
        self.0.available.borrow_mut()[usize::from(entry)] = head;
    }
    fn publish(&self, index: u16) {
        self.0.available_index.set(index);
    }
    fn set_available_flags(&self, _flags: u16) {}
    fn set_used_event(&self, _index: u16) {}
    fn used_index(&self) -> u16 {
        self.0.used_index.get()
    }
    fn used_flags(&self) -> u16 {
        self.0.used_flags.get()
    }
    fn used(&self, entry: u16) -> UsedElement {
        let (id, len) = self.0.used.borrow()[usize::from(entry)];
        UsedElement { id: id.into(), len: len.into() }
    }
    fn available_event(&self) -> u16 {
        self.0.available_event.get()
    }
    fn full_fence(&self) {}
    fn clear(&self) {
        let plain = &self.0;
        for cell in [&plain.available_index, &plain.used_index, &plain.used_flags, &plain.available_event] {
            cell.set(0);
        }
        plain.used.borrow_mut().fill((0, 0));
        plain.available.borrow_mut().fill(0);
    }
}

/// What the driver gave and has not got back, by the chain's name.
type Flying = BTreeMap<u16, Vec<Buffer>>;

struct Pair {
    ring: Split<Memory>,
    plain: Rc<Plain>,
    size: u16,
    flying: Flying,
    /// The device has seen the available ring up to here, and taken these.
    seen: u16,
    taken: VecDeque<u16>,
    /// What an honest device answered and the driver has not seen yet.
    answered: VecDeque<(u16, u32)>,
    lied: bool,
}

fn room(buffers: &[Buffer]) -> u32 {
    buffers.iter().filter(|buffer| buffer.writable).map(|buffer| buffer.len).sum()
}

impl Pair {
    fn new(size: u16, table_len: u16, event_idx: bool) -> Option<Self> {
        let n = usize::from(size);
        let none = Descriptor::of_words([0; 2]);
        let plain = Rc::new(Plain {
            descriptors: vec![none; n].into(),
            tables: vec![none; n * usize::from(table_len)].into(),
            table_len,
            available: vec![0; n].into(),
            available_index: Cell::default(),
            used: vec![(0, 0); n].into(),
            used_index: Cell::default(),
            used_flags: Cell::default(),
            available_event: Cell::default(),
        });
        let ring = Split::new(Memory(Rc::clone(&plain)), size, event_idx)?;
        let (flying, taken, answered) = (BTreeMap::new(), VecDeque::new(), VecDeque::new());
        Some(Self { ring, plain, size, flying, seen: 0, taken, answered, lied: false })
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
        // Given up half way, now and then: nothing has happened.
        let given = if how & 0x80 != 0 { buffers.len() / 2 } else { buffers.len() };
        buffers[..given].iter().for_each(|buffer| chain.push(*buffer));
        let Ok(head) = chain.finish() else { return };
        assert_eq!(given, buffers.len(), "a chain that is shorter than was said");
        assert!(self.flying.insert(head, buffers).is_none(), "two chains have one name: {head}");
    }

    /// What an honest device finds behind a head, as it walks the descriptors.
    fn walk(&self, head: u16) -> Vec<Buffer> {
        let buffer = |descriptor: &Descriptor| Buffer {
            addr: descriptor.addr.get(),
            len: descriptor.len.get(),
            writable: descriptor.flags.get() & DESC_WRITE != 0,
        };
        let descriptors = self.plain.descriptors.borrow();
        let first = descriptors[usize::from(head)];
        if first.flags.get() & DESC_INDIRECT != 0 {
            let from = ((first.addr.get() - TABLES) / 16) as usize;
            let table = &self.plain.tables.borrow()[from..from + first.len.get() as usize / 16];
            return table.iter().map(buffer).collect();
        }
        let (mut buffers, mut at) = (vec![buffer(&first)], first);
        while at.flags.get() & DESC_NEXT != 0 {
            assert!(buffers.len() < usize::from(self.size), "a chain without end");
            at = descriptors[usize::from(at.next.get())];
            buffers.push(buffer(&at));
        }
        buffers
    }

    fn take(&mut self) {
        while self.seen != self.plain.available_index.get() {
            let head = self.plain.available.borrow()[usize::from(self.seen % self.size)];
            self.seen = self.seen.wrapping_add(1);
            if !self.lied {
                assert_eq!(Some(&self.walk(head)), self.flying.get(&head), "chain {head} is not what was given");
            }
            self.taken.push_back(head);
        }
    }

    fn write_used(&mut self, id: u32, len: u32) {
        let index = self.plain.used_index.get();
        self.plain.used.borrow_mut()[usize::from(index % self.size)] = (id, len);
        self.plain.used_index.set(index.wrapping_add(1));
    }

    fn answer(&mut self, which: u8, len: u8) {
        self.take();
        let Some(head) = self.taken.remove(usize::from(which) % self.taken.len().max(1)) else { return };
        let most = self.flying.get(&head).map_or(0, |buffers| room(buffers));
        let len = u32::from(len).min(most);
        self.write_used(u32::from(head), len);
        self.answered.push_back((head, len));
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
        match what % 5 {
            0 => self.write_used(u32::from(value), u32::from(value) * 7),
            1 => self.write_used(u32::from(value) << 12, 0),
            2 => self.plain.used_index.set(value),
            3 => {
                let entry = usize::from(value % self.size);
                self.plain.used.borrow_mut()[entry] = (u32::from(value >> 8) % u32::from(self.size), u32::from(value));
            }
            _ => {
                let head = self.taken.front().copied().unwrap_or_default();
                self.write_used(u32::from(head), u32::MAX - u32::from(value));
            }
        }
    }

    fn restart(&mut self) {
        self.ring.restart();
        self.flying.clear();
        self.taken.clear();
        self.answered.clear();
        (self.seen, self.lied) = (0, false);
    }
}

/// A script for a driver and a device with a split ring between them.
///
/// # Panics
/// If the ring returns what is not in flight, or more than there is room for; if it breaks without a lie; if the device is shown another chain
/// than the driver gave.
pub fn virtqueue_split(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let shape = bytes.u8();
    let (size, table_len) = (1 << (shape % 5), [0, 4][usize::from(shape >> 5 & 1)]);
    let Some(mut pair) = Pair::new(size, table_len, shape & 0x80 != 0) else { return };
    // Rings whose indices are about to wrap are reached by answering.
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
            13 => {
                // Any wish for kicks is lawful, or harmless.
                pair.plain.available_event.set(two);
                pair.plain.used_flags.set(two);
            }
            14 if one < 32 => pair.restart(),
            14 => {
                // Round and round, up to and over the wrap.
                for _ in 0..u32::from(two) % 300 {
                    pair.add(1, 0);
                    _ = pair.ring.publish();
                    pair.answer(0, 0);
                    pair.pop();
                }
            }
            _ => pair.lie(one, two),
        }
        let (flying, free) = (pair.flying.len(), pair.ring.free());
        assert!(pair.lied || usize::from(pair.ring.in_flight()) == flying, "chains are lost");
        assert!(usize::from(free) + flying <= usize::from(size), "descriptors are counted twice");
    }
    while !pair.lied && !pair.flying.is_empty() {
        _ = pair.ring.publish();
        pair.answer(0, 0);
        pair.pop();
    }
    assert!(pair.lied || pair.ring.free() == size, "descriptors are lost");
}
