//! The packed ring against a device on another CPU, in every order that the memory model allows. Run as `loom_tests` says.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};
use loom::thread;

use super::loom_tests::{Leaves, holds};
use super::*;
use crate::wire::ring::packed::{AVAIL, EVENT_DESC, EVENT_WRAP, PackedDescriptor, USED};

const SIZE: u16 = 4;
const EMPTY: u16 = 0xffff;

struct Shared {
    leaves: Leaves,
    ids: [AtomicU16; SIZE as usize],
    flags: [AtomicU16; SIZE as usize],
    driver_event: AtomicU32,
    device_event: AtomicU32,
    /// What the device wrote into each chain's buffer.
    status: [AtomicU16; SIZE as usize],
}

#[derive(Clone)]
struct Memory(Arc<Shared>);

impl PackedMemory for Memory {
    fn set_descriptor(&self, index: u16, _: u64, _: u32, id: u16) {
        self.0.ids[usize::from(index)].store(id, Ordering::Relaxed);
    }
    fn set_flags(&self, index: u16, flags: u16) {
        self.0.flags[usize::from(index)].store(flags, Ordering::Relaxed);
    }
    fn publish(&self, index: u16, flags: u16) {
        let order = if self.0.leaves == Leaves::Release { Ordering::Relaxed } else { Ordering::Release };
        self.0.flags[usize::from(index)].store(flags, order);
    }
    fn flags(&self, index: u16) -> u16 {
        let order = if self.0.leaves == Leaves::Acquire { Ordering::Relaxed } else { Ordering::Acquire };
        self.0.flags[usize::from(index)].load(order)
    }
    fn used(&self, index: u16) -> (u16, u32) {
        (self.0.ids[usize::from(index)].load(Ordering::Relaxed), 0)
    }
    fn set_indirect(&self, _: u16, _: u16, _: PackedDescriptor) {}
    fn table_addr(&self, _: u16) -> u64 {
        0
    }
    fn table_len(&self) -> u16 {
        0
    }
    fn set_driver_event(&self, at: u16, how: u16) {
        self.0.driver_event.store(u32::from(at) | u32::from(how) << 16, Ordering::Relaxed);
    }
    fn device_event(&self) -> (u16, u16) {
        let both = self.0.device_event.load(Ordering::Relaxed);
        (both as u16, (both >> 16) as u16)
    }
    fn full_fence(&self) {
        if self.0.leaves != Leaves::Fences {
            fence(Ordering::SeqCst);
        }
    }
    fn clear(&self) {}
}

impl Memory {
    fn new(leaves: Leaves) -> Self {
        Self(Arc::new(Shared {
            leaves,
            ids: core::array::from_fn(|_| AtomicU16::new(EMPTY)),
            flags: core::array::from_fn(|_| AtomicU16::new(0)),
            driver_event: AtomicU32::new(u32::from(EVENT_WRAP) | u32::from(EVENT_DESC) << 16),
            device_event: AtomicU32::new(u32::from(EVENT_WRAP) | u32::from(EVENT_DESC) << 16),
            status: core::array::from_fn(|_| AtomicU16::new(EMPTY)),
        }))
    }

    fn ring(&self) -> Packed<Self> {
        Packed::new(self.clone(), SIZE, true).unwrap()
    }

    /// The device takes what is there (all in the first lap), asks for a kick at the next and looks once more; then it sleeps.
    fn device_sleeps(&self) -> Vec<u16> {
        let mut taken = Vec::new();
        let there = |at: usize, order| self.0.flags[at].load(order) & (AVAIL | USED) == AVAIL;
        loop {
            while there(taken.len(), Ordering::Acquire) {
                taken.push(self.0.ids[taken.len()].load(Ordering::Relaxed));
            }
            let event = taken.len() as u32 | u32::from(EVENT_WRAP) | u32::from(EVENT_DESC) << 16;
            self.0.device_event.store(event, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if !there(taken.len(), Ordering::Acquire) {
                return taken;
            }
        }
    }

    /// The device returns `id` at place `at`; whether it interrupts.
    fn device_returns(&self, at: u16, id: u16) -> bool {
        self.0.status[usize::from(id)].store(id + 100, Ordering::Relaxed);
        self.0.ids[usize::from(at)].store(id, Ordering::Relaxed);
        self.0.flags[usize::from(at)].store(AVAIL | USED, Ordering::Release);
        fence(Ordering::SeqCst);
        let wish = self.0.driver_event.load(Ordering::Relaxed);
        (wish >> 16) as u16 == EVENT_DESC && wish as u16 == at | EVENT_WRAP
    }
}

fn add(ring: &mut Packed<Memory>) -> u16 {
    let mut chain = ring.chain(1).unwrap();
    chain.push(Buffer { addr: 0, len: 1, writable: true });
    chain.finish().unwrap()
}

fn kicks(leaves: Leaves) -> bool {
    holds(move || {
        let memory = Memory::new(leaves);
        let mut ring = memory.ring();
        let driver = thread::spawn(move || {
            (1..=2)
                .filter(|_| {
                    add(&mut ring);
                    ring.publish()
                })
                .collect::<Vec<u16>>()
        });
        let taken = memory.device_sleeps();
        let kicks = driver.join().unwrap();
        assert!(taken.iter().all(|id| *id != EMPTY), "a descriptor was read before it was written");
        let seen = taken.len() as u16;
        assert!(seen == 2 || kicks.iter().any(|published| *published > seen), "a kick was lost");
    })
}

/// Two chains in one publish: the device sees none or both, whatever the order of their flags.
fn batch(leaves: Leaves) -> bool {
    holds(move || {
        let memory = Memory::new(leaves);
        let mut ring = memory.ring();
        let driver = thread::spawn(move || {
            add(&mut ring);
            add(&mut ring);
            ring.publish()
        });
        let taken = memory.device_sleeps();
        let kicked = driver.join().unwrap();
        assert!(taken.iter().all(|id| *id != EMPTY), "a descriptor was read before it was written");
        assert!(taken.len() != 1, "half of a batch was seen");
        assert!(taken.len() == 2 || kicked, "a kick was lost");
    })
}

fn interrupts(leaves: Leaves) -> bool {
    holds(move || {
        let memory = Memory::new(leaves);
        let mut ring = memory.ring();
        let ids = [add(&mut ring), add(&mut ring)];
        let _ = ring.publish();
        let host = memory.clone();
        // The second first.
        let device = thread::spawn(move || [host.device_returns(0, ids[1]), host.device_returns(1, ids[0])]);
        let mut popped = 0;
        loop {
            ring.disable_interrupts();
            while let Some(used) = ring.pop().expect("honest") {
                let status = memory.0.status[usize::from(used.head)].load(Ordering::Relaxed);
                assert_eq!(status, used.head + 100, "a buffer was read before it was written");
                popped += 1;
            }
            if !ring.enable_interrupts() {
                break;
            }
        }
        let raised = device.join().unwrap();
        assert!(popped == 2 || raised[popped..].contains(&true), "an interrupt was lost");
    })
}

#[test]
fn loom_no_kick_is_lost_on_a_packed_ring() {
    assert!(kicks(Leaves::Nothing) && batch(Leaves::Nothing));
}

#[test]
fn loom_no_kick_is_lost_on_a_packed_ring_control() {
    assert!(!kicks(Leaves::Fences));
    assert!(!kicks(Leaves::Release) && !batch(Leaves::Release));
}

#[test]
fn loom_no_interrupt_is_lost_on_a_packed_ring() {
    assert!(interrupts(Leaves::Nothing));
}

#[test]
fn loom_no_interrupt_is_lost_on_a_packed_ring_control() {
    assert!(!interrupts(Leaves::Fences));
}

#[test]
fn loom_x02_used_flags_are_acquired() {
    assert!(interrupts(Leaves::Nothing));
}

#[test]
fn loom_x02_used_flags_are_acquired_control() {
    assert!(!interrupts(Leaves::Acquire));
}
