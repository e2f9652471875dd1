//! The ring against a device on another CPU, in every order that the memory model allows.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test --release -p undercroft-virtio --lib loom`. The driver's side is the true ring. Descriptors play
//! no part: they are published with the index like the entries of the available ring, which are here.

use loom::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::*;
use crate::wire::ring::{Descriptor, UsedElement};

const SIZE: u16 = 4;

/// What the shared memory leaves out, for the controls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    Nothing,
    /// The driver's full fences.
    Fences,
    /// The acquire of the used index (X02, X22).
    Acquire,
    /// The release of the available index.
    Release,
}

struct Shared {
    leaves: Leaves,
    available: [AtomicU16; SIZE as usize],
    available_index: AtomicU16,
    used_event: AtomicU16,
    used: [AtomicU32; SIZE as usize],
    used_index: AtomicU16,
    available_event: AtomicU16,
    /// What the device wrote into each chain's buffer.
    status: [AtomicU16; SIZE as usize],
}

#[derive(Clone)]
struct Memory(Arc<Shared>);

impl RingMemory for Memory {
    fn set_descriptor(&self, _: u16, _: Descriptor) {}
    fn set_indirect(&self, _: u16, _: u16, _: Descriptor) {}
    fn table_addr(&self, _: u16) -> u64 {
        0
    }
    fn table_len(&self) -> u16 {
        0
    }
    fn set_available(&self, entry: u16, head: u16) {
        self.0.available[usize::from(entry)].store(head, Ordering::Relaxed);
    }
    fn publish(&self, index: u16) {
        let order = if self.0.leaves == Leaves::Release { Ordering::Relaxed } else { Ordering::Release };
        self.0.available_index.store(index, order);
    }
    fn set_available_flags(&self, _: u16) {}
    fn set_used_event(&self, index: u16) {
        self.0.used_event.store(index, Ordering::Relaxed);
    }
    fn used_index(&self) -> u16 {
        let order = if self.0.leaves == Leaves::Acquire { Ordering::Relaxed } else { Ordering::Acquire };
        self.0.used_index.load(order)
    }
    fn used_flags(&self) -> u16 {
        0
    }
    fn used(&self, entry: u16) -> UsedElement {
        UsedElement { id: self.0.used[usize::from(entry)].load(Ordering::Relaxed).into(), len: 0.into() }
    }
    fn available_event(&self) -> u16 {
        self.0.available_event.load(Ordering::Relaxed)
    }
    fn full_fence(&self) {
        if self.0.leaves != Leaves::Fences {
            fence(Ordering::SeqCst);
        }
    }
    fn clear(&self) {}
    fn shared_next(&self, _: u16) -> Option<u16> {
        None
    }
}

const EMPTY: u16 = 0xffff;

impl Memory {
    fn new(leaves: Leaves) -> Self {
        Self(Arc::new(Shared {
            leaves,
            // Neither is a head that is ever in use: what was not written shows.
            available: core::array::from_fn(|_| AtomicU16::new(EMPTY)),
            used: core::array::from_fn(|_| AtomicU32::new(u32::from(EMPTY))),
            status: core::array::from_fn(|_| AtomicU16::new(EMPTY)),
            available_index: AtomicU16::new(0),
            used_event: AtomicU16::new(0),
            used_index: AtomicU16::new(0),
            available_event: AtomicU16::new(0),
        }))
    }

    fn ring(&self) -> Split<Self> {
        Split::new(self.clone(), SIZE, true).unwrap()
    }

    /// The device takes what is there, asks for a kick at the next and looks once more; then it sleeps. Returns what it took.
    fn device_sleeps(&self) -> Vec<u16> {
        let mut taken = Vec::new();
        loop {
            let index = self.0.available_index.load(Ordering::Acquire);
            while taken.len() < usize::from(index) {
                taken.push(self.0.available[taken.len() % usize::from(SIZE)].load(Ordering::Relaxed));
            }
            self.0.available_event.store(index, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if self.0.available_index.load(Ordering::Acquire) == index {
                return taken;
            }
        }
    }

    /// The device returns `head`; whether it interrupts.
    fn device_returns(&self, head: u16) -> bool {
        let old = self.0.used_index.load(Ordering::Relaxed);
        self.0.status[usize::from(head)].store(head + 100, Ordering::Relaxed);
        self.0.used[usize::from(old % SIZE)].store(u32::from(head), Ordering::Relaxed);
        self.0.used_index.store(old + 1, Ordering::Release);
        fence(Ordering::SeqCst);
        need_event(self.0.used_event.load(Ordering::Relaxed), old + 1, old)
    }
}

fn add(ring: &mut Split<Memory>) -> u16 {
    let mut chain = ring.chain(1).unwrap();
    chain.push(Buffer { addr: 0, len: 1, writable: true });
    chain.finish().unwrap()
}

/// Runs a model. Whether it holds in every order.
pub(super) fn holds(model: impl Fn() + Sync + Send + 'static) -> bool {
    let model = std::panic::AssertUnwindSafe(model);
    std::panic::catch_unwind(move || {
        let model = model;
        loom::model(move || (model.0)());
    })
    .is_ok()
}

/// A driver publishes twice while a device goes to sleep.
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
        assert!(taken.iter().all(|head| *head != EMPTY), "an entry was read before it was written");
        // Whatever it did not see before it slept, it was kicked for.
        let seen = taken.len() as u16;
        assert!(seen == 2 || kicks.iter().any(|published| *published > seen), "a kick was lost");
    })
}

/// A device returns two chains while a driver drains and asks for an interrupt.
fn interrupts(leaves: Leaves) -> bool {
    holds(move || {
        let memory = Memory::new(leaves);
        let mut ring = memory.ring();
        let heads = [add(&mut ring), add(&mut ring)];
        let _ = ring.publish();
        let host = memory.clone();
        let device = thread::spawn(move || heads.map(|head| host.device_returns(head)));
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
fn loom_no_kick_is_lost() {
    assert!(kicks(Leaves::Nothing));
}

#[test]
fn loom_no_kick_is_lost_control() {
    assert!(!kicks(Leaves::Fences));
    assert!(!kicks(Leaves::Release));
}

#[test]
fn loom_no_interrupt_is_lost() {
    assert!(interrupts(Leaves::Nothing));
}

#[test]
fn loom_no_interrupt_is_lost_control() {
    assert!(!interrupts(Leaves::Fences));
}

#[test]
fn loom_x02_used_index_is_acquired() {
    assert!(interrupts(Leaves::Nothing));
}

#[test]
fn loom_x02_used_index_is_acquired_control() {
    assert!(!interrupts(Leaves::Acquire));
}

/// Two CPUs submit at the same time; the device must find both chains.
fn two_submitters(submit: fn(&Mutex<Split<Memory>>, &Memory)) -> bool {
    holds(move || {
        let memory = Memory::new(Leaves::Nothing);
        let ring = Arc::new(Mutex::new(memory.ring()));
        let other = {
            let (ring, memory) = (ring.clone(), memory.clone());
            thread::spawn(move || submit(&ring, &memory))
        };
        submit(&ring, &memory);
        other.join().unwrap();
        let mut taken = memory.device_sleeps();
        taken.sort_unstable();
        assert_eq!(taken, [0, 1], "a chain was lost or offered twice");
    })
}

#[test]
fn loom_x01_two_submitters() {
    assert!(two_submitters(|ring, _| {
        let mut ring = ring.lock().unwrap();
        add(&mut ring);
        let _ = ring.publish();
    }));
}

/// The hazard: the chain is made under the lock, and put on the ring outside of it.
#[test]
fn loom_x01_two_submitters_control() {
    assert!(!two_submitters(|ring, memory| {
        let head = add(&mut ring.lock().unwrap());
        let index = memory.0.available_index.load(Ordering::Acquire);
        memory.set_available(index % SIZE, head);
        memory.publish(index + 1);
    }));
}
