//! The local APIC: acknowledging, sending to other processors, and its timer's registers.
//!
//! Source: Intel SDM volume 3, chapter 12. x2APIC (registers are MSRs) where the processor has it, else xAPIC
//! (registers in memory).
//!
//! Contexts: all, after [`init`].

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::interrupts::SPURIOUS;
use super::{paging, port, registers};

/// MSR that turns the local APIC on and tells where it is.
const APIC_BASE: u32 = 0x1B;
const APIC_BASE_ENABLE: u64 = 1 << 11;
const APIC_BASE_X2: u64 = 1 << 10;
/// The first x2APIC register's MSR.
const X2_FIRST: u32 = 0x800;

/// Register offsets in memory; an x2APIC register's MSR is [`X2_FIRST`] plus a sixteenth of it.
const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const END_OF_INTERRUPT: u32 = 0xB0;
const SPURIOUS_VECTOR: u32 = 0xF0;
const COMMAND: u32 = 0x300;
const COMMAND_HIGH: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_ERROR: u32 = 0x370;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3E0;
/// Only in x2APIC mode.
const SELF_INTERRUPT: u32 = 0x3F0;

const MASKED: u32 = 1 << 16;
const MODE_TSC_DEADLINE: u32 = 2 << 17;
const SOFTWARE_ENABLE: u32 = 1 << 8;
/// Delivery status of the interrupt command register in xAPIC mode.
const SEND_PENDING: u32 = 1 << 12;

static X2: AtomicBool = AtomicBool::new(false);
/// Where the registers are seen in xAPIC mode.
static REGISTERS: AtomicU64 = AtomicU64::new(0);

fn register(offset: u32) -> *mut u32 {
    core::ptr::with_exposed_provenance_mut((REGISTERS.load(Ordering::Relaxed) + u64::from(offset)) as usize)
}

fn read(offset: u32) -> u32 {
    if X2.load(Ordering::Relaxed) {
        // SAFETY: x2APIC mode is on, and this file names existing registers only.
        unsafe { registers::read_msr(X2_FIRST + (offset >> 4)) as u32 }
    } else {
        // SAFETY: `init` mapped the registers' page before it set `REGISTERS`; nothing calls here before.
        unsafe { register(offset).read_volatile() }
    }
}

#[inline(always)]
fn write(offset: u32, value: u32) {
    if X2.load(Ordering::Relaxed) {
        // SAFETY: as in `read`; the values written here arm vectors that have handlers.
        unsafe { registers::write_msr(X2_FIRST + (offset >> 4), u64::from(value)) };
    } else {
        // SAFETY: as in `read`.
        unsafe { register(offset).write_volatile(value) };
    }
}

/// The local APIC could not be reached: no memory for its page tables, or there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoLocalApic;

/// Turns this processor's local APIC on, with everything masked but what is sent to it.
pub(super) fn init(address: u64) -> Result<(), NoLocalApic> {
    let features = registers::cpuid(1, 0);
    if features.edx & 1 << 9 == 0 {
        return Err(NoLocalApic);
    }
    let x2 = features.ecx & 1 << 21 != 0;
    // SAFETY: the register exists where CPUID shows a local APIC; turning it on, and on to x2 mode where CPUID shows
    // that, is a legal transition from the state after reset and from that after firmware.
    unsafe {
        let base = registers::read_msr(APIC_BASE) | APIC_BASE_ENABLE;
        registers::write_msr(APIC_BASE, base);
        if x2 {
            registers::write_msr(APIC_BASE, base | APIC_BASE_X2);
        }
    }
    if !x2 {
        REGISTERS.store(paging::map_device(address, 4096).ok_or(NoLocalApic)?, Ordering::Relaxed);
    }
    X2.store(x2, Ordering::Relaxed);
    quieten();
    Ok(())
}

/// Turns another processor's local APIC on, in the boot processor's mode.
pub(super) fn init_here() {
    // SAFETY: as in `init`: the boot processor has found what the machine has, and INIT leaves the state after reset.
    unsafe {
        let base = registers::read_msr(APIC_BASE) | APIC_BASE_ENABLE;
        registers::write_msr(APIC_BASE, base);
        if X2.load(Ordering::Relaxed) {
            registers::write_msr(APIC_BASE, base | APIC_BASE_X2);
        }
    }
    quieten();
}

/// Masks everything but what is sent to this processor.
fn quieten() {
    write(LVT_TIMER, MASKED);
    write(LVT_LINT0, MASKED);
    write(LVT_ERROR, MASKED);
    write(TASK_PRIORITY, 0);
    write(SPURIOUS_VECTOR, SOFTWARE_ENABLE | SPURIOUS);
    // Whatever firmware left in service would block what comes below it.
    end_of_interrupt();
}

/// Which kind is in use, for people.
pub(super) fn kind() -> &'static str {
    if X2.load(Ordering::Relaxed) { "x2apic" } else { "xapic" }
}

/// Returns this processor's APIC id.
pub(super) fn id() -> u32 {
    let id = read(ID);
    if X2.load(Ordering::Relaxed) { id } else { id >> 24 }
}

/// Acknowledges the interrupt in service.
#[inline(always)]
pub(super) fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

/// Fixed delivery, level asserted, in the interrupt command register.
const FIXED_ASSERT: u32 = 1 << 14;

/// Sends `vector` to this processor itself.
pub(super) fn send_to_self(vector: u32) {
    const SELF: u32 = 1 << 18;
    if X2.load(Ordering::Relaxed) {
        write(SELF_INTERRUPT, vector);
    } else {
        write(COMMAND, FIXED_ASSERT | SELF | vector);
    }
}

/// Sends `vector` to the processor with APIC id `target`.
pub(super) fn send(target: u32, vector: u32) {
    command(target, FIXED_ASSERT | vector);
}

/// Resets a processor, which then waits for [`send_startup`].
pub(super) fn send_init(target: u32) {
    const INIT: u32 = 5 << 8;
    command(target, INIT | FIXED_ASSERT);
}

/// Lets a processor that was reset begin at the page frame `page`, below 1 MiB. Others do not take notice.
pub(super) fn send_startup(target: u32, page: u64) {
    const STARTUP: u32 = 6 << 8;
    command(target, STARTUP | FIXED_ASSERT | (page >> 12) as u32 & 0xFF);
}

/// Sends a non-maskable interrupt to all other processors.
pub(super) fn send_nmi_to_others() {
    const NMI: u32 = 4 << 8;
    const OTHERS: u32 = 3 << 18;
    command(0, OTHERS | NMI | FIXED_ASSERT);
}

/// Whether a command can name the processor: ids above 8 bits need x2APIC mode.
pub(super) fn reaches(target: u32) -> bool {
    X2.load(Ordering::Relaxed) || target < 0xFF
}

/// Writes the interrupt command register.
fn command(target: u32, low: u32) {
    if X2.load(Ordering::Relaxed) {
        let command = u64::from(target) << 32 | u64::from(low);
        // SAFETY: the interrupt command register exists in x2 mode; what is sent has a handler, or is meant to reset.
        unsafe { registers::write_msr(X2_FIRST + (COMMAND >> 4), command) };
        return;
    }
    // Two registers: nothing may send between the writes.
    let interrupts = registers::SavedInterrupts::disable();
    while read(COMMAND) & SEND_PENDING != 0 {
        core::hint::spin_loop();
    }
    write(COMMAND_HIGH, target << 24);
    write(COMMAND, low);
    drop(interrupts);
}

/// Sets the timer to count down once at the bus clock, raising `vector` at zero.
pub(super) fn timer_one_shot(vector: u32) {
    write(DIVIDE, 0b1011);
    write(LVT_TIMER, vector);
}

/// Sets the timer to raise `vector` when the time-stamp counter reaches a deadline.
pub(super) fn timer_tsc_deadline(vector: u32) {
    write(LVT_TIMER, MODE_TSC_DEADLINE | vector);
    // SAFETY: a fence has no effect but order: the mode must be in force before the deadline is written (SDM 12.5.4.1).
    unsafe { core::arch::asm!("mfence", options(nostack, preserves_flags)) };
}

/// Starts the count-down; zero stops it.
pub(super) fn timer_start(count: u32) {
    write(INITIAL_COUNT, count);
}

/// What is left of the count-down.
pub(super) fn timer_left() -> u32 {
    read(CURRENT_COUNT)
}

/// Moves the two 8259 controllers' vectors out of the exceptions' way and masks all their lines.
pub(super) fn silence_8259() {
    const FIRST: (u16, u16) = (0x20, 0x21);
    const SECOND: (u16, u16) = (0xA0, 0xA1);
    for (ports, vectors, cascade) in [(FIRST, 0x20, 4), (SECOND, 0x28, 2)] {
        port::write8(ports.0, 0x11);
        port::write8(ports.1, vectors);
        port::write8(ports.1, cascade);
        port::write8(ports.1, 0x01);
        port::write8(ports.1, 0xFF);
    }
}
