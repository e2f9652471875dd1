//! Stacks in a window of their own, each with unmapped pages below and above.
//!
//! A slot is 1 MiB of addresses per stack; the stack's pages begin one page above the slot's start, the rest of
//! the slot stays unmapped. The boot stack, in the image's data, serves only until the first of these is ready.

use super::descriptors::FAULT_STACKS;
use super::layout::STACKS;
use super::memory;
use super::paging::{self, Rights};

const SLOT_BYTES: u64 = 1 << 20;
const GUARD_BYTES: u64 = 4096;
/// Slots of a processor: its task stack, its fault stacks and its bottom halves'.
const SLOTS_PER_CPU: u64 = 2 + FAULT_STACKS as u64;
/// Bytes of a processor's task stack. Interrupts run on it too, and bottom halves when a task waits.
const TASK_BYTES: u64 = 128 * 1024;
/// Bytes of the stack of bottom halves that run at an interrupt's end, and of the interrupts that they let in.
const BOTTOM_HALF_BYTES: u64 = 64 * 1024;
/// Bytes of each fault stack.
const FAULT_BYTES: u64 = 16 * 1024;
/// Slots that can exist.
const SLOTS: u64 = 64 * 1024;

/// Why a stack could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoMemory;

/// Ends of one processor's stacks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set {
    pub(super) task: u64,
    pub(super) faults: [u64; FAULT_STACKS],
    pub(super) bottom_half: u64,
}

/// Makes all stacks of processor `cpu`.
pub(super) fn make_set(cpu: usize) -> Result<Set, NoMemory> {
    let first = cpu as u64 * SLOTS_PER_CPU;
    let task = make(first, TASK_BYTES)?;
    let mut faults = [0; FAULT_STACKS];
    for (slot, top) in (first + 1..).zip(&mut faults) {
        *top = make(slot, FAULT_BYTES)?;
    }
    let bottom_half = make(first + 1 + FAULT_STACKS as u64, BOTTOM_HALF_BYTES)?;
    Ok(Set { task, faults, bottom_half })
}

/// Makes the stack of slot `slot` and returns its end, from where it grows down.
fn make(slot: u64, bytes: u64) -> Result<u64, NoMemory> {
    debug_assert!(slot < SLOTS && bytes <= SLOT_BYTES - 2 * GUARD_BYTES);
    let bottom = STACKS + slot * SLOT_BYTES + GUARD_BYTES;
    let frames = memory::allocate(bytes, 4096, u64::MAX).ok_or(NoMemory)?;
    paging::map(bottom, frames, bytes, Rights::Write).map_err(|_| NoMemory)?;
    Ok(bottom + bytes)
}

/// Whether `address` lies in the window of stacks; a fault there is an overflow.
pub(super) fn is_guard(address: u64) -> bool {
    (STACKS..STACKS + SLOTS * SLOT_BYTES).contains(&address) && paging::translate(address).is_none()
}

/// Whether a frame pointer may be followed to `address`: eight-byte aligned and on a stack that is mapped.
pub(super) fn is_readable(address: u64) -> bool {
    let on_stack = (STACKS..STACKS + SLOTS * SLOT_BYTES).contains(&address);
    let image = super::layout::image();
    let on_boot_stack = (image[2]..image[3] - 16).contains(&address);
    address.is_multiple_of(8)
        && (on_boot_stack
            || on_stack && paging::translate(address).is_some() && paging::translate(address + 15).is_some())
}
