//! What this machine is: for the program, and for people.
//!
//! Contexts: all; written once by the boot code.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;

use super::{clock, memory, processors, timer};
use crate::firmware::acpi::Tables;
use crate::firmware::command_line::{self, VirtioMmio};

/// Bytes of the command line that are kept.
pub(super) const COMMAND_LINE_BYTES: usize = 4096;
/// Virtio devices on the memory bus that are kept.
const MAX_VIRTIO_MMIO: usize = 64;

struct Facts {
    command_line: ArrayVec<u8, COMMAND_LINE_BYTES>,
    oem: [u8; 6],
    has_tables: bool,
    processors: usize,
    virtio_mmio: ArrayVec<VirtioMmio, MAX_VIRTIO_MMIO>,
}

struct Cell(UnsafeCell<Facts>);

// SAFETY: written by the boot code, alone, before `READY`; only read afterwards.
unsafe impl Sync for Cell {}

static FACTS: Cell = Cell(UnsafeCell::new(Facts {
    command_line: ArrayVec::new_const(),
    oem: [0; 6],
    has_tables: false,
    processors: 1,
    virtio_mmio: ArrayVec::new_const(),
}));
static READY: AtomicBool = AtomicBool::new(false);

/// What the boot code found.
pub(super) struct Handover<'t> {
    pub(super) tables: Option<&'t Tables>,
}

/// Before `READY`, for the boot code.
fn facts_mut(work: impl FnOnce(&mut Facts)) {
    if !READY.load(Ordering::Acquire) {
        // SAFETY: only the boot code calls this, on one processor and not nested, and nobody reads before `READY`.
        work(unsafe { &mut *FACTS.0.get() });
    }
}

fn facts() -> Option<&'static Facts> {
    // SAFETY: after `READY` nothing writes.
    READY.load(Ordering::Acquire).then(|| unsafe { &*FACTS.0.get() })
}

/// Keeps a copy of the command line, which ends at the first zero byte.
pub(super) fn set_command_line(bytes: &[u8]) {
    facts_mut(|facts| {
        facts.command_line.extend(bytes.iter().copied().take_while(|&byte| byte != 0).take(COMMAND_LINE_BYTES));
    });
}

/// Notes what the tables say and makes everything readable.
pub(super) fn set(handover: Handover<'_>) {
    facts_mut(|facts| {
        if let Some(tables) = handover.tables {
            facts.oem = tables.oem;
            facts.has_tables = true;
            facts.processors = tables.madt.as_ref().map_or(1, |madt| madt.cpus.len().max(1));
            facts.virtio_mmio.extend(tables.virtio_mmio.iter().copied());
        }
        let line = core::str::from_utf8(&facts.command_line).unwrap_or("");
        for device in command_line::virtio_mmio(line) {
            if !facts.virtio_mmio.iter().any(|known| known.base == device.base) {
                let _ = facts.virtio_mmio.try_push(device);
            }
        }
    });
    READY.store(true, Ordering::Release);
}

/// Returns the command line. One that is not UTF-8 is empty.
pub fn command_line() -> &'static str {
    facts().map_or("", |facts| core::str::from_utf8(&facts.command_line).unwrap_or(""))
}

/// Returns the virtio devices on the memory bus: from the firmware's tables and from `virtio_mmio.device=` words.
pub fn virtio_mmio() -> &'static [VirtioMmio] {
    facts().map_or(&[], |facts| &facts.virtio_mmio)
}

/// Returns how many processors the machine has. Those that take part are `hal::cpu::count`.
pub fn processors() -> usize {
    facts().map_or(1, |facts| facts.processors)
}

/// Returns how many processors the firmware named that did not come up, or could not be reached.
pub fn processors_left_out() -> usize {
    processors::left_out()
}

/// Returns bytes of RAM: all, and free.
pub fn memory() -> (u64, u64) {
    memory::bytes()
}

/// Keeps the last `bytes` bytes of page frames for [`write_back`](crate::heap::write_back).
pub fn keep_reserve(bytes: u64) {
    memory::keep_reserve(bytes);
}

/// Returns the hypervisor's name.
pub fn hypervisor() -> &'static str {
    clock::hypervisor_name()
}

/// Returns the manufacturer's id in the firmware tables, or why there is none.
pub fn firmware() -> &'static str {
    match facts() {
        Some(facts) if facts.has_tables => core::str::from_utf8(&facts.oem).unwrap_or("?").trim(),
        _ => "no tables",
    }
}

/// Returns what tells the time.
pub fn clock() -> &'static str {
    clock::kind()
}

/// Returns by how many ticks the processors' time-stamps were seen to differ when they came up. The clock makes up for it.
pub fn stamps_apart() -> u64 {
    clock::apart()
}

/// Returns what raises the alarm.
pub fn timer() -> &'static str {
    timer::kind()
}
