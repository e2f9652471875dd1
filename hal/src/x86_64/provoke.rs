//! Faults and oddities on purpose, for the tests of the last screen and of the other processors. Only with the feature `provoke`.
//!
//! Contexts: task. None of these returns if the platform is right.

use core::arch::asm;
use core::hint::black_box;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::shootdown::defect;
use super::{layout, machine, paging, percpu, registers};
use crate::firmware::command_line;

/// Reads through a null pointer.
pub fn null_read() {
    // SAFETY: page 0 is never mapped: the read faults, and the fault ends the machine.
    black_box(unsafe { core::ptr::without_provenance::<u64>(black_box(8)).read_volatile() });
}

/// Writes to the image's text.
pub fn write_to_text() {
    let [_, text, ..] = layout::image();
    let target: *mut u8 = core::ptr::with_exposed_provenance_mut(text as usize);
    // SAFETY: text is mapped without the right to write: the write faults, and the fault ends the machine.
    unsafe { target.write_volatile(0) };
}

/// Writes to the image's constants.
pub fn write_to_constants() {
    let [start, ..] = layout::image();
    let target: *mut u8 = core::ptr::with_exposed_provenance_mut(start as usize);
    // SAFETY: as in `write_to_text`.
    unsafe { target.write_volatile(0) };
}

/// Executes bytes that lie in data.
pub fn execute_data() {
    static RETURN: [u8; 1] = [0xC3];
    let mut on_stack = RETURN;
    // SAFETY: the stack is mapped without the right to execute: the call faults, and the fault ends the machine. Were
    // it to run, it would return at once.
    unsafe { asm!("call {}", in(reg) black_box(&raw mut on_stack), clobber_abi("C")) };
}

/// Runs off the end of the stack.
pub fn overflow_stack() {
    fn deeper(depth: u64) -> u64 {
        let here = black_box([depth; 64]);
        if black_box(true) { deeper(depth + 1) + here[(depth % 64) as usize] } else { 0 }
    }
    black_box(deeper(0));
}

/// Executes an undefined instruction.
pub fn undefined_instruction() {
    // SAFETY: it faults, and the fault ends the machine.
    unsafe { asm!("ud2", options(nomem, nostack)) };
}

/// Spins with interrupts off, for ever.
pub fn hang_with_interrupts_off() {
    registers::interrupts_disable();
    loop {
        core::hint::spin_loop();
    }
}

/// Spins with interrupts on, for ever.
pub fn hang_with_interrupts_on() {
    registers::interrupts_enable();
    loop {
        core::hint::spin_loop();
    }
}

/// Raises the breakpoint exception, which returns.
pub fn breakpoint() {
    // SAFETY: its handler prints a line and returns.
    unsafe { asm!("int3", options(nomem, nostack)) };
}

/// What the page tables hold, counted by their last entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// Mapped pages, of every size.
    pub mapped: u64,
    /// Those that can be executed.
    pub executable: u64,
    /// Those that can be written and executed: none, if the platform is right.
    pub writable_and_executable: u64,
    /// Those whose frame can be written by another name while it can be executed here: none either.
    pub executable_with_writable_alias: u64,
}

/// Walks all page tables.
pub fn pages() -> Pages {
    paging::count()
}

/// Maps a page that can be written and executed, for [`pages`] to notice. Returns whether it could be mapped.
pub fn map_wrongly() -> bool {
    paging::map_wrongly().is_ok()
}

/// What is wrong with how processors are told that a mapping is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shootdown {
    /// Nothing.
    Right,
    /// The others are not told.
    NotSent,
    /// A processor that spins with interrupts off does not look.
    Deaf,
}

/// Puts a defect in, or takes it out.
pub fn shootdown(how: Shootdown) {
    defect::put_back(match how {
        Shootdown::Right => 0,
        Shootdown::NotSent => defect::NOT_SENT,
        Shootdown::Deaf => defect::DEAF,
    });
}

/// The frame that is mapped at an address.
pub fn frame_at(address: usize) -> Option<u64> {
    paging::translate(address as u64)
}

static DUD: AtomicU32 = AtomicU32::new(u32::MAX);
static NAIVE: AtomicU32 = AtomicU32::new(0);
static SKEW: AtomicU64 = AtomicU64::new(0);

/// Reads what the command line wants of the other processors: `dud=ID` is never started, and the time-stamps of all but
/// the boot processor are `skew=TICKS` behind, which with `naive=1` nobody notices.
pub(super) fn prepare() {
    for (name, value) in command_line::words(machine::command_line()) {
        match name {
            "dud" => DUD.store(value.parse().unwrap_or(u32::MAX), Ordering::Relaxed),
            "naive" => NAIVE.store(1, Ordering::Relaxed),
            "skew" => SKEW.store(value.parse().unwrap_or(0), Ordering::Relaxed),
            _ => {}
        }
    }
}

pub(super) fn is_dud(apic_id: u32) -> bool {
    DUD.load(Ordering::Relaxed) == apic_id
}

pub(super) fn is_naive() -> bool {
    NAIVE.load(Ordering::Relaxed) != 0
}

pub(super) fn skew() -> u64 {
    if percpu::id() == 0 { 0 } else { SKEW.load(Ordering::Relaxed) }
}
