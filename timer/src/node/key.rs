//! Keys: who may touch a node's fields.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::completion::Waiters;
use crate::level::LEVELS;

/// The right to nodes whose home it is: there is one for each wheel, under its lock.
pub(crate) struct Key {
    pub(super) id: u32,
    /// The generation of the run in flight at each level, or of the last: an executor has one at a time.
    pub(super) flights: [u32; LEVELS],
    /// Those who wait for the end of the run in flight at each level.
    pub(super) waiters: [Waiters; LEVELS],
}

impl Key {
    pub(crate) const fn id(&self) -> u32 {
        self.id
    }
}

/// Keys for a new service's wheels, which no other service has.
pub(crate) fn new_keys(count: usize) -> impl Iterator<Item = Key> {
    static SERVICES: AtomicU32 = AtomicU32::new(1);
    let service = SERVICES.fetch_add(1, Ordering::Relaxed);
    assert!(service < 1 << 24 && count <= 1 << CPU_BITS, "too many services");
    (0..count as u32).map(move |cpu| Key {
        id: service << CPU_BITS | cpu,
        flights: [0; LEVELS],
        waiters: [const { None }; LEVELS],
    })
}

/// A wheel's name is its service's number and, in the low bits, its CPU.
const CPU_BITS: u32 = 8;

/// The CPU of a wheel.
pub(crate) const fn cpu_of(id: u32) -> usize {
    (id & ((1 << CPU_BITS) - 1)) as usize
}

/// The wheel of another CPU of the same service.
pub(crate) const fn wheel_of(id: u32, cpu: usize) -> u32 {
    id >> CPU_BITS << CPU_BITS | cpu as u32
}
