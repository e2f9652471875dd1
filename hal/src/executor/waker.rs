//! Wakers that are numbers.
//!
//! UNSAFETY: `RawWaker`'s functions take the number where others keep a pointer; it is never dereferenced.

use core::task::{RawWaker, RawWakerVTable, Waker};

use super::slots::Key;
use crate::cpu::MAX_CPUS;
use crate::system;

/// CPU in bits 0 to 7, slot in bits 8 to 23, generation above (32 bits; 64-bit targets only).
const _: () = assert!(usize::BITS >= 64 && MAX_CPUS <= 256);

fn pack(cpu: usize, key: Key) -> *const () {
    core::ptr::without_provenance(cpu | usize::from(key.index) << 8 | (key.generation as usize) << 24)
}

fn unpack(data: *const ()) -> (usize, Key) {
    let bits = data.addr();
    (bits & 0xff, Key { index: (bits >> 8) as u16, generation: (bits >> 24) as u32 })
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(|data| RawWaker::new(data, &VTABLE), wake, wake, |_| ());

fn wake(data: *const ()) {
    let (cpu, key) = unpack(data);
    system::with(|system| {
        if let Some(per_cpu) = system.cpus.get(cpu) {
            per_cpu.sleepers.wake(cpu, key);
        }
    });
}

/// A waker for a slot of a CPU.
pub(super) fn waker(cpu: usize, key: Key) -> Waker {
    // SAFETY: the functions treat the data as a number, keep nothing, free nothing, and may be called on any thread.
    unsafe { Waker::from_raw(RawWaker::new(pack(cpu, key), &VTABLE)) }
}
