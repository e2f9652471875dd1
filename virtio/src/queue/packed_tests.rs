//! The packed ring against a device in plain memory, which counts places without end: wrap counters, batches, order, and every lie that fits.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::defect::{Defect, Defects};
use crate::wire::ring::packed::{AVAIL, EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, EVENT_WRAP, PackedDescriptor, USED};
use crate::wire::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE};

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    len: u32,
    id: u16,
    flags: u16,
}

#[derive(Default)]
struct State {
    ring: Vec<Cell>,
    tables: Vec<u32>,
    table_len: u16,
    driver: (u16, u16),
    device: (u16, u16),
}

type Plain = Rc<RefCell<State>>;

impl PackedMemory for Plain {
    fn set_descriptor(&self, index: u16, _: u64, len: u32, id: u16) {
        let cell = &mut self.borrow_mut().ring[usize::from(index)];
        (cell.len, cell.id) = (len, id);
    }
    fn set_flags(&self, index: u16, flags: u16) {
        self.borrow_mut().ring[usize::from(index)].flags = flags;
    }
    fn publish(&self, index: u16, flags: u16) {
        self.set_flags(index, flags);
    }
    fn flags(&self, index: u16) -> u16 {
        self.borrow().ring[usize::from(index)].flags
    }
    fn used(&self, index: u16) -> (u16, u32) {
        let cell = self.borrow().ring[usize::from(index)];
        (cell.id, cell.len)
    }
    fn set_indirect(&self, id: u16, index: u16, descriptor: PackedDescriptor) {
        let state = &mut *self.borrow_mut();
        assert!(index < state.table_len, "a table is overrun");
        let len = if descriptor.flags.get() == DESC_WRITE { descriptor.len.get() } else { 0 };
        state.tables[usize::from(id * state.table_len + index)] = len;
    }
    fn table_addr(&self, id: u16) -> u64 {
        u64::from(id)
    }
    fn table_len(&self) -> u16 {
        self.borrow().table_len
    }
    fn set_driver_event(&self, at: u16, how: u16) {
        self.borrow_mut().driver = (at, how);
    }
    fn device_event(&self) -> (u16, u16) {
        self.borrow().device
    }
    fn full_fence(&self) {}
    fn clear(&self) {
        let state = &mut *self.borrow_mut();
        state.ring.fill(Cell::default());
        (state.driver, state.device) = ((0, 0), (0, 0));
    }
}

/// A chain that the device has: id, places, writable bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Had {
    id: u16,
    places: u16,
    writable: u32,
}

struct Device {
    memory: Plain,
    size: u64,
    taken: u64,
    used: u64,
    has: Vec<Had>,
}

impl Device {
    fn new(size: u16, table_len: u16, event_idx: bool) -> (Packed<Plain>, Self) {
        let state = State {
            ring: vec![Cell::default(); usize::from(size)],
            tables: vec![0; usize::from(size * table_len)],
            table_len,
            ..State::default()
        };
        let memory = Rc::new(RefCell::new(state));
        let ring = Packed::new(Rc::clone(&memory), size, event_idx).unwrap();
        (ring, Self { memory, size: size.into(), taken: 0, used: 0, has: Vec::new() })
    }

    fn even_lap(&self, place: u64) -> bool {
        (place / self.size).is_multiple_of(2)
    }

    fn event(&self, place: u64) -> u16 {
        (place % self.size) as u16 | if self.even_lap(place) { EVENT_WRAP } else { 0 }
    }

    fn available(&self, place: u64) -> Option<Cell> {
        let cell = self.memory.borrow().ring[(place % self.size) as usize];
        let bits = (cell.flags & AVAIL != 0, cell.flags & USED != 0);
        (bits == (self.even_lap(place), !self.even_lap(place)) && place - self.used < self.size).then_some(cell)
    }

    /// Takes all that is available and asks to hear of the next.
    fn take(&mut self, event_idx: bool) {
        while let Some(first) = self.available(self.taken) {
            let mut had = Had { id: first.id, places: 0, writable: 0 };
            loop {
                let cell = self.available(self.taken).expect("a chain was torn");
                self.taken += 1;
                had.places += 1;
                had.id = cell.id;
                if cell.flags & DESC_INDIRECT != 0 {
                    let state = self.memory.borrow();
                    let at = usize::from(cell.id * state.table_len);
                    had.writable = state.tables[at..at + cell.len as usize / 16].iter().sum();
                } else if cell.flags & DESC_WRITE != 0 {
                    had.writable += cell.len;
                }
                if cell.flags & DESC_NEXT == 0 {
                    break;
                }
            }
            self.has.push(had);
        }
        let event = self.event(self.taken);
        self.memory.borrow_mut().device = (event, if event_idx { EVENT_DESC } else { EVENT_ENABLE });
    }

    /// Writes a used descriptor, whatever it says; whether it interrupts.
    fn put(&mut self, id: u16, len: u32, places: u16) -> bool {
        let flags = if self.even_lap(self.used) { AVAIL | USED } else { 0 };
        self.memory.borrow_mut().ring[(self.used % self.size) as usize] = Cell { len, id, flags };
        let passed = self.used..self.used + u64::from(places);
        self.used = passed.end;
        let (at, how) = self.memory.borrow().driver;
        match how {
            EVENT_ENABLE => true,
            EVENT_DISABLE => false,
            _ => passed.into_iter().any(|place| self.event(place) == at),
        }
    }

    fn give(&mut self, nth: usize) -> bool {
        let Had { id, places, writable } = self.has.remove(nth);
        self.put(id, writable, places)
    }
}

fn add(ring: &mut Packed<Plain>, buffers: u16) -> Result<u16, AddError> {
    let mut chain = ring.chain(buffers)?;
    for nth in 0..buffers {
        chain.push(Buffer { addr: 0, len: 100 + u32::from(nth), writable: nth > 0 || buffers == 1 });
    }
    chain.finish()
}

/// What the device may write into such a chain.
fn writable(buffers: u16) -> u32 {
    if buffers == 1 { 100 } else { (1..buffers).map(|nth| 100 + u32::from(nth)).sum() }
}

/// Batches of chains of different lengths, returned out of order, through thousands of laps; reports the first thing that is wrong.
fn laps(size: u16, table_len: u16, event_idx: bool, defects: Defects) -> Result<(), String> {
    let (mut ring, mut device) = Device::new(size, table_len, event_idx);
    ring.set_defects(defects);
    device.take(event_idx);
    assert!(!ring.enable_interrupts());
    let mut random = undercroft_hosts::Random::new(u64::from(size));
    let mut given: Vec<(u16, u16)> = Vec::new();
    for round in 0..20_000 {
        let before = given.len();
        for _ in 0..1 + random.below(7) {
            let buffers = 1 + random.below(4) as u16;
            match add(&mut ring, buffers) {
                Ok(id) => given.push((id, buffers)),
                Err(AddError::Full | AddError::BadChain) => {}
                Err(error) => return Err(format!("round {round}: {error:?}")),
            }
        }
        if given.iter().skip(before).any(|(id, _)| ring.was_told(*id)) {
            return Err(format!("round {round}: told before it was"));
        }
        // A device that is asked to look and one that sleeps.
        if ring.publish() != (given.len() > before) {
            return Err(format!("round {round}: a kick was lost, or was for nothing"));
        }
        if ring.publish() || given.iter().any(|(id, _)| !ring.was_told(*id)) {
            return Err(format!("round {round}: published twice, or not at all"));
        }
        device.take(event_idx);
        if device.has.len() != given.len() {
            return Err(format!("round {round}: the device has {} of {}", device.has.len(), given.len()));
        }
        let returns = random.below(given.len() + 1);
        let mut interrupts = 0;
        for _ in 0..returns {
            let nth = random.below(device.has.len());
            interrupts += u32::from(device.give(nth));
        }
        if (interrupts > 0) != (returns > 0) || event_idx && interrupts > 1 {
            return Err(format!("round {round}: {interrupts} interrupts for {returns} returns"));
        }
        ring.disable_interrupts();
        for _ in 0..returns {
            let used = match ring.pop() {
                Ok(Some(used)) => used,
                other => return Err(format!("round {round}: {other:?}")),
            };
            let Some(nth) = given.iter().position(|(id, _)| *id == used.head) else {
                return Err(format!("round {round}: {used:?} was not given"));
            };
            let (_, buffers) = given.remove(nth);
            if used.len != writable(buffers) {
                return Err(format!("round {round}: {used:?} of {buffers} buffers"));
            }
        }
        if ring.enable_interrupts() || ring.pop() != Ok(None) {
            return Err(format!("round {round}: something came from nowhere"));
        }
        ring.check().map_err(|what| format!("round {round}: {what}"))?;
    }
    Ok(())
}

#[test]
fn wrap_counters_turn_with_batches_of_every_length() {
    for size in [1, 2, 3, 4, 7, 8, 64, 100] {
        for table_len in [0, 4] {
            for event_idx in [false, true] {
                assert_eq!(laps(size, table_len, event_idx, Defects::none()), Ok(()), "{size} {table_len} {event_idx}");
            }
        }
    }
}

#[test]
fn wrap_counters_turn_with_batches_of_every_length_control() {
    let failed = laps(8, 0, true, Defects::one(Defect::KeepsWrap)).unwrap_err();
    assert!(failed.contains("Ok(None)") || failed.contains("came from nowhere"), "{failed}");
}

#[test]
fn x03_a_kick_is_lost_at_the_wrap_of_a_packed_ring_control() {
    let failed = laps(8, 0, true, Defects::one(Defect::PlainWindow)).unwrap_err();
    assert!(failed.contains("a kick was lost"), "{failed}");
}

/// Every lie about what was used: an error for ever after, and nothing is returned that was not in flight.
fn lies(defects: Defects) -> Result<(), String> {
    type Lie = fn(&mut Device);
    let all: [(Lie, RingError); 4] = [
        (
            |device| {
                device.put(8, 0, 1);
            },
            RingError::IdOutOfRange(8),
        ),
        (
            |device| {
                device.put(5, 0, 1);
            },
            RingError::NotInFlight(5),
        ),
        (
            |device| {
                device.put(0, 1000, 2);
            },
            RingError::TooLong(1000),
        ),
        (
            |device| {
                device.put(1, 0, 2);
                device.put(1, 0, 2);
            },
            RingError::NotInFlight(1),
        ),
    ];
    for (lie, error) in all {
        let (mut ring, mut device) = Device::new(8, 0, true);
        ring.set_defects(defects);
        for _ in 0..3 {
            add(&mut ring, 2).unwrap();
        }
        assert!(ring.publish());
        device.take(true);
        lie(&mut device);
        let first = ring.pop();
        let answer = if matches!(error, RingError::NotInFlight(1)) { ring.pop() } else { first };
        if answer != Err(error) {
            return Err(format!("{answer:?} where {error:?} was due"));
        }
        assert_eq!((ring.pop(), add(&mut ring, 1)), (Err(error), Err(AddError::Broken(error))));
        assert!(!ring.publish() && !ring.enable_interrupts());
        ring.restart();
        assert_eq!((ring.pop(), ring.in_flight()), (Ok(None), 0));
        ring.check().unwrap();
        add(&mut ring, 8).unwrap();
    }
    Ok(())
}

#[test]
fn x02_hostile_packed_ring() {
    assert_eq!(lies(Defects::none()), Ok(()));
}

#[test]
fn x02_hostile_packed_ring_control() {
    for (defect, expected) in [(Defect::TrustsUsedIds, "NotInFlight"), (Defect::TrustsLengths, "TooLong")] {
        let failed = lies(Defects::one(defect)).unwrap_err();
        assert!(failed.contains(expected), "{failed}");
    }
}

/// Flags that are neither: nothing is returned, whatever they are, and nothing panics.
#[test]
fn random_flags_and_ids_do_no_harm() {
    for seed in 0..200 {
        let (mut ring, device) = Device::new(8, 0, seed % 2 == 0);
        let mut random = undercroft_hosts::Random::new(seed);
        for _ in 0..60 {
            let _ = add(&mut ring, 1 + random.below(3) as u16);
            let _ = ring.publish();
            let at = random.below(8);
            device.memory.borrow_mut().ring[at] = Cell {
                len: random.next_u64() as u32 % 300,
                id: random.next_u64() as u16 % 10,
                flags: random.next_u64() as u16,
            };
            device.memory.borrow_mut().device = (random.next_u64() as u16, random.next_u64() as u16 % 4);
            let _ = ring.pop();
            let _ = ring.enable_interrupts();
            ring.check().unwrap();
        }
    }
}

/// Unfinished and wrong chains leave nothing that a device could take for a descriptor.
#[test]
fn a_chain_that_is_not_finished_is_not_there() {
    let (mut ring, mut device) = Device::new(4, 0, false);
    for _ in 0..9 {
        let mut chain = ring.chain(4).unwrap();
        (0..4).for_each(|_| chain.push(Buffer { addr: 0, len: 1, writable: false }));
        drop(chain);
        let mut chain = ring.chain(2).unwrap();
        chain.push(Buffer { addr: 0, len: 1, writable: true });
        chain.push(Buffer { addr: 0, len: 1, writable: false });
        assert_eq!(chain.finish(), Err(AddError::BadChain));
        add(&mut ring, 1).unwrap();
        assert!(ring.publish());
        device.take(false);
        assert_eq!(device.has.len(), 1);
        device.give(0);
        assert!(ring.pop().unwrap().is_some());
    }
    assert!(matches!(ring.chain(5), Err(AddError::BadChain)) && matches!(ring.chain(0), Err(AddError::BadChain)));
}
