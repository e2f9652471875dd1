//! From a vector to whoever waits for it.
//!
//! | vectors | what |
//! |---|---|
//! | 0x00–0x1F | exceptions ([`super::exceptions`]) |
//! | 0x20–0x2F | the silenced 8259s, whose spurious interrupts are dropped |
//! | 0x30–0xEF | devices: each processor has its own table from vector to dispatch slot |
//! | 0xF0 | this processor's timer |
//! | 0xF1 | a kick from a processor |
//! | 0xF2 | the console's transmitter |
//! | 0xF3 | another processor took mappings away ([`super::shootdown`]) |
//! | 0xFF | spurious interrupts of the local APIC |

use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use super::timer::{self, Expired};
use super::{apic, console, ioapic, percpu, shootdown};
use crate::cpu::MAX_CPUS;
use crate::dispatch;
use crate::irq::{IrqError, IrqLine, MsiMessage, Slot};

const FIRST_DEVICE: u32 = 0x30;
const LAST_DEVICE: u32 = 0xEF;
/// Vector of the timer.
pub(super) const TIMER: u32 = 0xF0;
/// Vector of a kick.
pub(super) const KICK: u32 = 0xF1;
const CONSOLE: u32 = 0xF2;
/// Vector of a request to forget translations.
pub(super) const SHOOTDOWN: u32 = 0xF3;
/// Vector of the local APIC's spurious interrupts.
pub(super) const SPURIOUS: u32 = 0xFF;

const DEVICES: usize = (LAST_DEVICE - FIRST_DEVICE + 1) as usize;
/// A vector that has no slot. Zero, so that the table is no part of the image's file.
const NO_SLOT: u16 = 0;

/// What the table holds for a slot.
const fn held(slot: Slot) -> u16 {
    slot.0.wrapping_add(1)
}

/// Per processor and device vector, the slot that it raises. A vector once given to a slot stays its own.
static SLOTS: [[AtomicU16; DEVICES]; MAX_CPUS] = [const { [const { AtomicU16::new(NO_SLOT) }; DEVICES] }; MAX_CPUS];

/// Interrupts that nobody waits for.
static STRAY: AtomicU32 = AtomicU32::new(0);

/// Entered by the vectors' code, with interrupts off. `true`: that code is to call [`bottom_halves`] on their own stack.
pub(super) extern "C" fn arrived(vector: u32) -> bool {
    // SAFETY, for every call of the dispatcher below: the processor has taken a hardware interrupt on this CPU, with
    // interrupts off, and the vectors' code heeds the answer.
    match vector {
        FIRST_DEVICE..=LAST_DEVICE => {
            let slot = SLOTS[percpu::id()][(vector - FIRST_DEVICE) as usize].load(Ordering::Acquire);
            // SAFETY: as above. An unknown slot is counted by the dispatcher.
            unsafe { dispatch::interrupt(Slot(slot.wrapping_sub(1)), apic::end_of_interrupt) }
        }
        TIMER => match timer::expired() {
            // SAFETY: as above. The end of an alarm's interrupt looks at the queues too.
            Expired { alarm: true, .. } => unsafe { dispatch::alarm(apic::end_of_interrupt) },
            // SAFETY: as above.
            Expired { kick: true, .. } => unsafe { dispatch::kicked(apic::end_of_interrupt) },
            Expired { .. } => {
                apic::end_of_interrupt();
                false
            }
        },
        KICK => {
            // SAFETY: as above.
            unsafe { dispatch::kicked(apic::end_of_interrupt) }
        }
        CONSOLE => {
            let _ = console::interrupt();
            apic::end_of_interrupt();
            false
        }
        SHOOTDOWN => {
            shootdown::serve();
            apic::end_of_interrupt();
            false
        }
        SPURIOUS | 0x20..FIRST_DEVICE => {
            STRAY.fetch_add(1, Ordering::Relaxed);
            false
        }
        _ => {
            STRAY.fetch_add(1, Ordering::Relaxed);
            apic::end_of_interrupt();
            false
        }
    }
}

/// Entered by the vectors' code after [`arrived`] said so, with interrupts off, on this processor's stack for it.
pub(super) extern "C" fn bottom_halves() {
    // SAFETY: the dispatcher asked for this call, and lets one batch at a time run on a processor: the stack is free.
    unsafe { dispatch::bottom_halves() }
}

/// Interrupts that nobody waits for, so far.
pub(super) fn stray() -> u32 {
    STRAY.load(Ordering::Relaxed)
}

/// The vector of `slot` on processor `cpu`: the one that it has, or a free one.
fn vector(slot: Slot, cpu: usize) -> Result<u32, IrqError> {
    let table = SLOTS.get(cpu).filter(|_| cpu < percpu::count()).ok_or(IrqError::NoCpu)?;
    let known = table.iter().position(|entry| entry.load(Ordering::Relaxed) == held(slot));
    let index = known.or_else(|| {
        let claim = |entry: &AtomicU16| {
            entry.compare_exchange(NO_SLOT, held(slot), Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        table.iter().position(claim)
    });
    index.map(|index| FIRST_DEVICE + index as u32).ok_or(IrqError::NoVector)
}

/// `Platform::msi_route`. Source: Intel SDM volume 3, 12.11.
pub(super) fn message(slot: Slot, cpu: usize) -> Result<MsiMessage, IrqError> {
    let vector = vector(slot, cpu)?;
    let target = percpu::apic_id(cpu);
    // The message has 8 bits for the processor; more need interrupt remapping.
    if target > 0xFF {
        return Err(IrqError::Unsupported);
    }
    Ok(MsiMessage { addr: 0xFEE0_0000 | u64::from(target) << 12, data: vector })
}

/// `Platform::raise`.
pub(super) fn raise(slot: Slot, cpu: usize) -> Result<(), IrqError> {
    let vector = vector(slot, cpu)?;
    if cpu == percpu::id() {
        apic::send_to_self(vector);
    } else {
        apic::send(percpu::apic_id(cpu), vector);
    }
    Ok(())
}

/// `Platform::line_route`: to the boot processor.
pub(super) fn line(line: IrqLine, slot: Slot) -> Result<(), IrqError> {
    ioapic::route(line, vector(slot, 0)?, percpu::apic_id(0)).map_err(|_| IrqError::NoLine)
}

/// Lets the serial port's interrupt (ISA 4) empty the console's ring.
pub(super) fn connect_console() {
    if ioapic::route(ioapic::isa(4), CONSOLE, percpu::apic_id(0)).is_ok() {
        console::enable_interrupt();
    }
}
