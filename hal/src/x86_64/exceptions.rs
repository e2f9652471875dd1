//! Exceptions: all of them end the machine with registers and a backtrace, but for the NMI, which the watchdog
//! uses, and the breakpoint.
//!
//! Source: Intel SDM volume 3, 7.15.
//!
//! Contexts: entered by the processor with interrupts off, at any instruction. Nothing here allocates or waits.

use super::{console, registers, stacks, stop, watchdog};

/// Vector of the non-maskable interrupt.
pub(super) const NMI: usize = 2;
const BREAKPOINT: u64 = 3;
/// Vector of the double fault.
pub(super) const DOUBLE_FAULT: usize = 8;
const PAGE_FAULT: u64 = 14;
/// Vector of the machine check.
pub(super) const MACHINE_CHECK: usize = 18;

/// The interrupted program, as the entry code lays it on the stack.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Frame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    pub(super) rbp: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rbx: u64,
    rax: u64,
    vector: u64,
    error: u64,
    pub(super) rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const NAMES: [&str; 22] = [
    "divide error",
    "debug",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor segment overrun",
    "invalid TSS",
    "segment not present",
    "stack-segment fault",
    "general protection",
    "page fault",
    "reserved",
    "floating-point error",
    "alignment check",
    "machine check",
    "SIMD floating-point error",
    "virtualization",
    "control protection",
];

/// Entered by the vectors' code for exceptions.
pub(super) extern "C" fn raised(frame: &Frame) {
    if frame.vector == NMI as u64 && stop::is_another() {
        registers::halt_forever();
    }
    if frame.vector == NMI as u64 && watchdog::nmi(frame) {
        return;
    }
    if frame.vector == BREAKPOINT {
        console::print(format_args!("breakpoint at {:#x}\n", frame.rip));
        return;
    }
    stop::begin();
    let name = NAMES.get(frame.vector as usize).copied().unwrap_or("reserved");
    console::print(format_args!(
        "\n*** undercroft stopped: {name} (vector {}, error {:#x})\n",
        frame.vector, frame.error
    ));
    explain(frame);
    dump(frame);
    stop::backtrace(frame.rip, frame.rbp);
    stop::end()
}

/// One line in plain words, where there is something to say.
fn explain(frame: &Frame) {
    let address = registers::fault_address();
    let on_guard = stacks::is_guard(address) || stacks::is_guard(frame.rsp);
    match frame.vector {
        // The fault stack of a double fault: the page fault before it left its address.
        8 if on_guard => console::print(format_args!("    the stack overflowed\n")),
        PAGE_FAULT => {
            let what = if frame.error & 16 != 0 {
                "execution"
            } else if frame.error & 2 != 0 {
                "write"
            } else {
                "read"
            };
            let why = match (on_guard, address < 4096, frame.error & 1 != 0) {
                (true, _, _) => "the guard page of a stack: it overflowed",
                (_, true, _) => "a null pointer",
                (_, _, true) => "not allowed there",
                _ => "nothing is mapped there",
            };
            console::print(format_args!("    {what} at {address:#x}: {why}\n"));
        }
        _ => {}
    }
}

/// Every register of the interrupted program.
pub(super) fn dump(frame: &Frame) {
    console::print(format_args!(
        "    rip {:016x} cs {:x} rflags {:x} rsp {:016x} ss {:x} cr2 {:x}\n\
         \x20   rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}\n\
         \x20   rsi {:016x} rdi {:016x} rbp {:016x} r8  {:016x}\n\
         \x20   r9  {:016x} r10 {:016x} r11 {:016x} r12 {:016x}\n\
         \x20   r13 {:016x} r14 {:016x} r15 {:016x}\n",
        frame.rip,
        frame.cs,
        frame.rflags,
        frame.rsp,
        frame.ss,
        registers::fault_address(),
        frame.rax,
        frame.rbx,
        frame.rcx,
        frame.rdx,
        frame.rsi,
        frame.rdi,
        frame.rbp,
        frame.r8,
        frame.r9,
        frame.r10,
        frame.r11,
        frame.r12,
        frame.r13,
        frame.r14,
        frame.r15,
    ));
}
