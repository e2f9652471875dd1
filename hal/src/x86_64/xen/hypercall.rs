//! Hypercalls: the page that Xen fills with code, and the few calls that are needed before there is memory to allocate.
//!
//! Source: Xen `public/arch-x86/xen-x86_64.h` (the calling convention), `public/xen.h` (the numbers), `public/hvm/hvm_op.h`,
//! `public/sched.h`, `public/event_channel.h`.
//!
//! UNSAFETY: an instruction sequence that Xen writes, and structures that it reads and writes by address.

use core::arch::{asm, global_asm};

use crate::x86_64::registers;

// Until Xen puts its code here, a call answers that there is no such call (ENOSYS).
global_asm!(
    r#"
    .section .text.xen_hypercalls, "ax"
    .balign 4096
xen_hypercalls:
    .rept 128
    mov rax, -38
    ret
    .balign 32, 0xcc
    .endr
    "#
);

unsafe extern "C" {
    safe static xen_hypercalls: u8;
}

/// Numbers of hypercalls.
const SCHEDULE: u64 = 29;
const EVENT_CHANNEL: u64 = 32;
const HVM: u64 = 34;
/// Calls that the page has room for, of 32 bytes each.
const CALLS: u64 = 128;

/// The domain itself.
const MYSELF: u16 = 0x7FF0;

/// Has Xen fill the page; `first` is its first CPUID leaf.
pub(super) fn init(first: u32) {
    let register = registers::cpuid(first + 2, 0).ebx;
    // The image lies where it was linked: physical and virtual addresses are alike.
    let page = (&raw const xen_hypercalls).addr() as u64;
    // SAFETY: CPUID names the register; Xen writes one page of code to the page, which holds nothing else.
    unsafe { registers::write_msr(register, page) };
}

/// Makes a hypercall. Negative answers are errors.
///
/// # Safety
/// The arguments are what the call takes: an address among them is that of memory that Xen may use as the call says.
pub(super) unsafe fn call(number: u64, arguments: [u64; 5]) -> i64 {
    let entry = (&raw const xen_hypercalls).addr() as u64 + number % CALLS * 32;
    let answer;
    // SAFETY: the page holds the code above or Xen's, which keeps to the convention: all registers but the result and those of the
    // arguments are preserved, but for what the instruction itself loses (rcx, r11). The rest is the caller's.
    unsafe {
        asm!(
            "call {entry}",
            entry = in(reg) entry,
            inlateout("rdi") arguments[0] => _,
            inlateout("rsi") arguments[1] => _,
            inlateout("rdx") arguments[2] => _,
            inlateout("r10") arguments[3] => _,
            inlateout("r8") arguments[4] => _,
            lateout("rax") answer,
            lateout("rcx") _, lateout("r11") _, lateout("r9") _,
        );
    }
    answer
}

/// Calls with a command and a structure, as most are.
fn with<T>(number: u64, command: u64, argument: &mut T) -> i64 {
    // SAFETY: private to this file: each caller passes the structure that the command takes, which Xen reads or writes during the call.
    unsafe { call(number, [command, (&raw mut *argument).addr() as u64, 0, 0, 0]) }
}

/// A parameter that the tool stack has set for this domain (`HVMOP_get_param`).
pub(super) fn parameter(index: u32) -> Option<u64> {
    #[repr(C)]
    struct Parameter {
        domain: u16,
        _pad: u16,
        index: u32,
        value: u64,
    }
    const GET_PARAMETER: u64 = 1;
    let mut parameter = Parameter { domain: MYSELF, _pad: 0, index, value: 0 };
    (with(HVM, GET_PARAMETER, &mut parameter) == 0).then_some(parameter.value)
}

/// Notifies the other end of an event channel.
pub(super) fn notify(port: u32) {
    const SEND: u64 = 4;
    let mut port = port;
    let _ = with(EVENT_CHANNEL, SEND, &mut port);
}

/// Lets others have the processor.
pub(super) fn give_way() {
    const YIELD: u64 = 0;
    // SAFETY: the call takes no address.
    let _ = unsafe { call(SCHEDULE, [YIELD, 0, 0, 0, 0]) };
}

/// Why a domain ends (`SHUTDOWN_*`).
#[derive(Clone, Copy, Debug)]
pub(super) enum Reason {
    PowerOff = 0,
    Reboot = 1,
    Crash = 3,
}

/// Ends the domain.
pub(super) fn shut_down(reason: Reason) {
    const SHUT_DOWN: u64 = 2;
    let mut reason = reason as u32;
    let _ = with(SCHEDULE, SHUT_DOWN, &mut reason);
}
