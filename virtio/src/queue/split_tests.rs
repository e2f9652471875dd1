//! The ring against a device in plain memory that does whatever the test says: honest by default, then every lie that fits in a ring.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::*;
use crate::defect::{Defect, Defects};
use crate::wire::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor, USED_NO_NOTIFY, UsedElement};

/// A ring's memory, with the device's view of it.
pub(super) struct Plain {
    descriptors: RefCell<Vec<Descriptor>>,
    tables: RefCell<Vec<Descriptor>>,
    table_len: u16,
    available: RefCell<Vec<u16>>,
    available_index: Cell<u16>,
    available_flags: Cell<u16>,
    used_event: Cell<u16>,
    used: RefCell<Vec<(u32, u32)>>,
    used_index: Cell<u16>,
    used_flags: Cell<u16>,
    available_event: Cell<u16>,
}

const NONE: Descriptor = Descriptor {
    addr: zerocopy::little_endian::U64::ZERO,
    len: zerocopy::little_endian::U32::ZERO,
    flags: zerocopy::little_endian::U16::ZERO,
    next: zerocopy::little_endian::U16::ZERO,
};

impl RingMemory for Rc<Plain> {
    fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        self.descriptors.borrow_mut()[usize::from(index)] = descriptor;
    }
    fn set_indirect(&self, head: u16, index: u16, descriptor: Descriptor) {
        assert!(index < self.table_len, "a table is overrun");
        self.tables.borrow_mut()[usize::from(head * self.table_len + index)] = descriptor;
    }
    fn table_addr(&self, head: u16) -> u64 {
        0x10_0000 + 16 * u64::from(head) * u64::from(self.table_len)
    }
    fn table_len(&self) -> u16 {
        self.table_len
    }
    fn set_available(&self, entry: u16, head: u16) {
        self.available.borrow_mut()[usize::from(entry)] = head;
    }
    fn publish(&self, index: u16) {
        self.available_index.set(index);
    }
    fn set_available_flags(&self, flags: u16) {
        self.available_flags.set(flags);
    }
    fn set_used_event(&self, index: u16) {
        self.used_event.set(index);
    }
    fn used_index(&self) -> u16 {
        self.used_index.get()
    }
    fn used_flags(&self) -> u16 {
        self.used_flags.get()
    }
    fn used(&self, entry: u16) -> UsedElement {
        let (id, len) = self.used.borrow()[usize::from(entry)];
        UsedElement { id: id.into(), len: len.into() }
    }
    fn available_event(&self) -> u16 {
        self.available_event.get()
    }
    fn full_fence(&self) {}
    fn clear(&self) {
        self.available_index.set(0);
        self.used_index.set(0);
        self.used_event.set(0);
        self.available_event.set(0);
        self.available_flags.set(0);
        self.used_flags.set(0);
    }
    fn shared_next(&self, index: u16) -> Option<u16> {
        let descriptor = self.descriptors.borrow()[usize::from(index)];
        (descriptor.flags.get() & DESC_NEXT != 0).then(|| descriptor.next.get())
    }
}

/// The device's side.
pub(super) struct Device {
    memory: Rc<Plain>,
    size: u16,
    event_idx: bool,
    seen: u16,
    /// Taken and not returned.
    pub(super) taken: VecDeque<u16>,
}

impl Device {
    pub(super) fn new(size: u16, table_len: u16, event_idx: bool) -> (Split<Rc<Plain>>, Self) {
        let n = usize::from(size);
        let memory = Rc::new(Plain {
            descriptors: RefCell::new(vec![NONE; n]),
            tables: RefCell::new(vec![NONE; n * usize::from(table_len)]),
            table_len,
            available: RefCell::new(vec![0; n]),
            available_index: Cell::new(0),
            available_flags: Cell::new(0),
            used_event: Cell::new(0),
            used: RefCell::new(vec![(0, 0); n]),
            used_index: Cell::new(0),
            used_flags: Cell::new(0),
            available_event: Cell::new(0),
        });
        let ring = Split::new(Rc::clone(&memory), size, event_idx).unwrap();
        (ring, Self { memory, size, event_idx, seen: 0, taken: VecDeque::new() })
    }

    /// Takes everything that was published and goes to sleep until the next.
    pub(super) fn take(&mut self) {
        while self.seen != self.memory.available_index.get() {
            self.taken.push_back(self.memory.available.borrow()[usize::from(self.seen % self.size)]);
            self.seen = self.seen.wrapping_add(1);
        }
        self.memory.available_event.set(self.seen);
    }

    /// Begins anew, as after a reset.
    pub(super) fn restart(&mut self) {
        self.seen = 0;
        self.taken.clear();
    }

    /// Writes a used element, whatever it says, and moves the index.
    fn put(&self, id: u32, len: u32) {
        let index = self.memory.used_index.get();
        self.memory.used.borrow_mut()[usize::from(index % self.size)] = (id, len);
        self.memory.used_index.set(index.wrapping_add(1));
    }

    /// Returns the `nth` of what it has; `true` if it would interrupt.
    pub(super) fn give(&mut self, nth: usize) -> bool {
        let head = self.taken.remove(nth).expect("has that many");
        let old = self.memory.used_index.get();
        self.put(u32::from(head), self.writable(head));
        let (event, new) = (self.memory.used_event.get(), self.memory.used_index.get());
        if self.event_idx { old == event } else { self.memory.available_flags.get() == 0 && new != old }
    }

    /// The chain at `head`, as the device reads it.
    pub(super) fn chain(&self, head: u16) -> Vec<Descriptor> {
        let descriptors = self.memory.descriptors.borrow();
        let first = descriptors[usize::from(head)];
        if first.flags.get() & DESC_INDIRECT != 0 {
            let at = ((first.addr.get() - 0x10_0000) / 16) as usize;
            return self.memory.tables.borrow()[at..at + first.len.get() as usize / 16].to_vec();
        }
        let mut chain = vec![first];
        while let Some(last) = chain.last().filter(|last| last.flags.get() & DESC_NEXT != 0) {
            chain.push(descriptors[usize::from(last.next.get())]);
            assert!(chain.len() <= descriptors.len(), "a chain that loops");
        }
        chain
    }

    fn writable(&self, head: u16) -> u32 {
        let chain = self.chain(head);
        chain.iter().filter(|d| d.flags.get() & DESC_WRITE != 0).map(|d| d.len.get()).sum()
    }
}

pub(super) fn add(ring: &mut Split<Rc<Plain>>, buffers: &[(u64, u32, bool)]) -> Result<u16, AddError> {
    let mut chain = ring.chain(buffers.len() as u16)?;
    for &(addr, len, writable) in buffers {
        chain.push(Buffer { addr, len, writable });
    }
    chain.finish()
}

pub(super) const READ: [(u64, u32, bool); 3] = [(0x1000, 16, false), (0x2000, 512, true), (0x3000, 1, true)];

/// Runs batches of 1 to 7 chains until the 16-bit indices went round, and reports the first thing that is wrong.
fn wraps(size: u16, table_len: u16, event_idx: bool, defects: Defects) -> Result<(), String> {
    let (mut ring, mut device) = Device::new(size, table_len, event_idx);
    ring.set_defects(defects);
    let (mut next, mut done, mut round) = (0u32, 0u32, 0u32);
    // The device sleeps and wants a kick for the next chain; the driver wants an interrupt for the next return.
    while next < 3 * 65_536 {
        let batch = 1 + round % 7;
        let mut heads = Vec::new();
        for _ in 0..batch {
            heads.push(add(&mut ring, &READ).map_err(|e| format!("round {round}: {e:?}"))?);
            next += 1;
        }
        if !ring.publish() {
            return Err(format!("round {round}: a sleeping device was not kicked"));
        }
        device.take();
        // A second publish has nothing to say.
        if ring.publish() {
            return Err(format!("round {round}: a kick for nothing"));
        }
        let mut interrupts = 0;
        for k in 0..batch {
            // Now in order, now the last first, now from the middle.
            let n = device.taken.len();
            let nth = [0, n - 1, n / 2][(round + k) as usize % 3];
            interrupts += u32::from(device.give(nth));
        }
        if interrupts == 0 {
            return Err(format!("round {round}: no interrupt"));
        }
        if event_idx && interrupts != 1 {
            return Err(format!("round {round}: {interrupts} interrupts for one batch"));
        }
        ring.disable_interrupts();
        while let Some(used) = ring.pop().map_err(|e| format!("round {round}: {e}"))? {
            let at = heads.iter().position(|head| *head == used.head).ok_or("a chain that was not given")?;
            heads.swap_remove(at);
            if used.len != 513 {
                return Err("the length is lost".into());
            }
            done += 1;
        }
        if ring.enable_interrupts() || !heads.is_empty() {
            return Err(format!("round {round}: something was left"));
        }
        ring.check().map_err(|e| format!("round {round}: {e}"))?;
        round += 1;
    }
    if done == next { Ok(()) } else { Err("not as many came back as went out".into()) }
}

#[test]
fn indices_wrap_with_batches_of_one_to_seven() {
    for (size, table_len) in [(32, 0), (8, 4), (256, 64), (1024, 4)] {
        for event_idx in [false, true] {
            wraps(size, table_len, event_idx, Defects::default()).unwrap_or_else(|e| panic!("size {size}: {e}"));
        }
    }
}

#[test]
fn x03_a_kick_is_lost_at_the_wrap_control() {
    let error = wraps(256, 4, true, Defects::one(Defect::PlainWindow)).unwrap_err();
    assert!(error.contains("not kicked"), "{error}");
}

#[test]
fn chains_are_written_as_the_specification_says() {
    for table_len in [0, 4] {
        let (mut ring, device) = Device::new(8, table_len, false);
        let head = add(&mut ring, &READ).unwrap();
        let chain = device.chain(head);
        let seen: Vec<_> = chain.iter().map(|d| (d.addr.get(), d.len.get(), d.flags.get())).collect();
        assert_eq!(seen, [(0x1000, 16, 1), (0x2000, 512, 3), (0x3000, 1, 2)]);
    }
}

#[test]
fn a_chain_that_is_wrong_or_abandoned_changes_nothing() {
    let (mut ring, _device) = Device::new(8, 0, false);
    assert_eq!(add(&mut ring, &[]), Err(AddError::BadChain));
    assert_eq!(add(&mut ring, &[(0, 1, false); 9]), Err(AddError::BadChain));
    assert_eq!(add(&mut ring, &[(0, 1, true), (0, 1, false)]), Err(AddError::BadChain), "wrong order");
    let mut short = ring.chain(3).unwrap();
    short.push(Buffer { addr: 0, len: 1, writable: true });
    assert_eq!(short.finish(), Err(AddError::BadChain));
    drop(ring.chain(5).unwrap());
    assert_eq!((ring.free(), ring.in_flight(), ring.publish()), (8, 0, false));
    add(&mut ring, &READ).unwrap();
    add(&mut ring, &READ).unwrap();
    assert_eq!(add(&mut ring, &READ), Err(AddError::Full));
    ring.check().unwrap();
    assert!(Split::new(Device::new(8, 0, false).1.memory, 12, false).is_none(), "not a power of two");
}

#[test]
fn no_notify_is_honoured_without_event_idx() {
    let (mut ring, mut device) = Device::new(8, 4, false);
    device.memory.used_flags.set(USED_NO_NOTIFY);
    add(&mut ring, &READ).unwrap();
    assert!(!ring.publish());
    device.memory.used_flags.set(0);
    add(&mut ring, &READ).unwrap();
    assert!(ring.publish());
    device.take();
    assert_eq!(device.taken.len(), 2);
}

/// What the device may lie about, what it must be answered, and the hazard that swallows it.
struct Lie {
    name: &'static str,
    tell: fn(&mut Device),
    error: RingError,
    defect: Defect,
}

/// Five chains of three descriptors are in flight in a direct ring of 32: heads 0, 3, 6, 9, 12; 15 to 31 are free.
const LIES: [Lie; 7] = [
    Lie {
        name: "id not in flight",
        tell: |d| d.put(20, 0),
        error: RingError::NotInFlight(20),
        defect: Defect::TrustsUsedIds,
    },
    Lie { name: "not a head", tell: |d| d.put(4, 0), error: RingError::NotHead(4), defect: Defect::TrustsUsedIds },
    Lie {
        name: "returned twice",
        tell: |d| {
            d.put(3, 0);
            d.put(3, 0);
        },
        error: RingError::NotInFlight(3),
        defect: Defect::TrustsUsedIds,
    },
    Lie {
        name: "index jumps",
        tell: |d| {
            d.put(0, 0);
            d.memory.used_index.set(d.memory.used_index.get().wrapping_add(5));
        },
        error: RingError::IndexJump(6),
        defect: Defect::TrustsUsedIndex,
    },
    Lie {
        name: "index goes back",
        tell: |d| d.memory.used_index.set(0xffff),
        error: RingError::IndexJump(0xffff),
        defect: Defect::TrustsUsedIndex,
    },
    Lie {
        name: "length too long",
        tell: |d| d.put(0, 514),
        error: RingError::TooLong(514),
        defect: Defect::TrustsLengths,
    },
    Lie {
        name: "length far too long",
        tell: |d| d.put(6, u32::MAX),
        error: RingError::TooLong(u32::MAX),
        defect: Defect::TrustsLengths,
    },
];

/// Tells the lie and drains: everything that the ring lets through is checked against what a driver relies on.
fn lied_to(lie: &Lie, defects: Defects) -> Result<RingError, &'static str> {
    let (mut ring, mut device) = Device::new(32, 0, true);
    ring.set_defects(defects);
    let mut in_flight: Vec<u16> = (0..5).map(|_| add(&mut ring, &READ).unwrap()).collect();
    assert!(ring.publish());
    device.take();
    (lie.tell)(&mut device);
    for _ in 0..100 {
        match ring.pop() {
            Ok(None) => return Err("the lie went unnoticed"),
            Ok(Some(used)) => {
                let Some(at) = in_flight.iter().position(|head| *head == used.head) else {
                    return Err("a chain came back that was not in flight");
                };
                if used.len > 513 {
                    return Err("more bytes came back than there is room for");
                }
                in_flight.swap_remove(at);
            }
            Err(error) => {
                // Broken for good, and nobody's memory was touched for it.
                assert_eq!(ring.pop(), Err(error));
                assert_eq!(add(&mut ring, &READ), Err(AddError::Broken(error)));
                assert!(!ring.publish());
                assert_eq!(ring.broken(), Some(error));
                return Ok(error);
            }
        }
    }
    Err("it never ends")
}

#[test]
fn x02_hostile_used_ring() {
    for lie in &LIES {
        assert_eq!(lied_to(lie, Defects::default()), Ok(lie.error), "{}", lie.name);
    }
    // Beyond the ring there is no shadow to look at: this check cannot be left out without a panic, so it has no twin.
    for id in [32, 0xffff, 0x1_0000, u32::MAX] {
        let (mut ring, mut device) = Device::new(32, 0, true);
        add(&mut ring, &READ).unwrap();
        assert!(ring.publish());
        device.take();
        device.put(id, 0);
        assert_eq!(ring.pop(), Err(RingError::IdOutOfRange(id)));
    }
}

#[test]
fn x02_hostile_used_ring_control() {
    for lie in &LIES {
        let outcome = lied_to(lie, Defects::one(lie.defect));
        assert_ne!(outcome, Ok(lie.error), "{}: the check does not notice that the test is gone", lie.name);
    }
}

/// Between submission and return the device rewrites the descriptors that it can reach. Afterwards the ring must be whole.
fn chains_rewritten(defects: Defects) -> Result<(), &'static str> {
    let (mut ring, mut device) = Device::new(16, 0, false);
    ring.set_defects(defects);
    for _ in 0..50 {
        let heads = [add(&mut ring, &READ).map_err(|_| "no room")?, add(&mut ring, &READ).map_err(|_| "no room")?];
        assert!(ring.publish());
        device.take();
        for descriptor in device.memory.descriptors.borrow_mut().iter_mut() {
            // Every descriptor now says that another chain's head follows it.
            descriptor.flags = (DESC_NEXT | DESC_WRITE).into();
            descriptor.next = heads[1].into();
        }
        device.taken.clear();
        for head in heads {
            device.put(u32::from(head), 0);
        }
        while ring.pop().map_err(|_| "broken by itself")?.is_some() {}
        ring.check()?;
    }
    Ok(())
}

#[test]
fn x35_chain_shadow_is_private() {
    assert_eq!(chains_rewritten(Defects::default()), Ok(()));
}

#[test]
fn x35_chain_shadow_is_private_control() {
    assert!(chains_rewritten(Defects::one(Defect::TrustsSharedChains)).is_err());
}

/// A long chain followed by a short one in the same descriptors, and the other way round.
fn reuse(defects: Defects) -> Result<(), &'static str> {
    let (mut ring, mut device) = Device::new(16, 0, false);
    ring.set_defects(defects);
    for lengths in [[7, 2, 5], [2, 7, 5], [1, 15, 1]] {
        for len in lengths {
            let buffers: Vec<_> = (0..len).map(|n| (n, 8, n > 0)).collect();
            let head = add(&mut ring, &buffers).map_err(|_| "no room")?;
            assert!(ring.publish());
            device.take();
            if device.chain(head).len() != len as usize {
                return Err("the chain has another length");
            }
            device.give(0);
            match ring.pop() {
                Ok(Some(used)) if used.head == head => {}
                _ => return Err("it did not come back"),
            }
            ring.check()?;
        }
    }
    Ok(())
}

#[test]
fn a_vq_04_a_recycled_chain_carries_nothing_stale() {
    assert_eq!(reuse(Defects::default()), Ok(()));
}

#[test]
fn a_vq_04_a_recycled_chain_carries_nothing_stale_control() {
    assert!(reuse(Defects::one(Defect::StaleChainLength)).is_err());
}
