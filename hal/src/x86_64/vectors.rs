//! The 256 interrupt vectors: descriptor table and entry code.
//!
//! Source: Intel SDM volume 3, chapter 7. Vectors 0 to 31 save every register for the last screen and go to
//! [`exceptions::raised`]; the others save what a call may change, lay a frame-pointer link so that a backtrace
//! leads into the interrupted code, and go to [`interrupts::arrived`] and then, if that says so and on their own
//! stack, to [`interrupts::bottom_halves`]. The target has no SSE state to save.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use ::x86_64::VirtAddr;
use ::x86_64::instructions::tables::lidt;
use ::x86_64::structures::DescriptorTablePointer;

use super::{descriptors, exceptions, interrupts, percpu};

global_asm!(
    r#"
    .section .text
    .macro VECTOR number
    .balign 16
vector_\number:
    .if \number < 32
    # The processor pushes an error code for these; the others get a zero in its place.
    .if \number != 8 && (\number < 10 || \number > 14) && \number != 17 && \number != 21 && \number != 29 && \number != 30
    push 0
    .endif
    push \number
    jmp exception_entry
    .else
    push rax
    mov eax, \number
    jmp interrupt_entry
    .endif
    .endm

    .altmacro
    .macro ALL_VECTORS
    .set number, 0
    .rept 256
    VECTOR %number
    .set number, number + 1
    .endr
    .endm
    ALL_VECTORS

    .balign 16
interrupt_entry:
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push [rsp + 72]             # the interrupted instruction, as if it had called us
    push rbp
    mov rbp, rsp
    mov edi, eax
    cld
    call {arrived}
    test al, al
    jz 2f
    mov rsp, gs:[{bottom_half_stack}]
    call {bottom_halves}
    mov rsp, rbp                # back on the interrupted stack
2:  pop rbp
    add rsp, 8
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
    iretq

    .balign 16
exception_entry:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    cld
    call {raised}
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    add rsp, 16                 # vector and error code
    iretq

    .macro ADDRESS number
    .quad vector_\number
    .endm
    .macro ALL_ADDRESSES
    .set number, 0
    .rept 256
    ADDRESS %number
    .set number, number + 1
    .endr
    .endm

    .section .rodata
    .balign 8
vector_addresses:
    ALL_ADDRESSES
    .noaltmacro
    .section .text
    "#,
    arrived = sym interrupts::arrived,
    bottom_halves = sym interrupts::bottom_halves,
    bottom_half_stack = const percpu::BOTTOM_HALF_STACK,
    raised = sym exceptions::raised,
);

unsafe extern "C" {
    safe static vector_addresses: [u64; 256];
}

/// One gate: address, code segment, stack number and type, as two words.
type Gate = [u64; 2];

#[repr(C, align(16))]
struct Table(UnsafeCell<[Gate; 256]>);

// SAFETY: written by the boot processor only, before another one runs (`fill` says so).
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([[0; 2]; 256]));

/// Present, interrupt gate (interrupts off on entry), privilege 0.
const INTERRUPT_GATE: u64 = 0x8E00 << 32;

fn gate(address: u64, stack: u64) -> Gate {
    let low = (address & 0xFFFF) | u64::from(descriptors::CODE) << 16 | stack << 32 | INTERRUPT_GATE;
    [low | (address & 0xFFFF_0000) << 32, address >> 32]
}

/// Fills the table. With `stacks`, NMI, double fault and machine check run on stacks of their own.
///
/// # Safety
/// Only the boot processor may call it, with no other processor running and interrupts off. With `stacks`,
/// every processor that loads the table must have those stacks in its task-state segment.
pub(super) unsafe fn fill(stacks: bool) {
    for (vector, &address) in vector_addresses.iter().enumerate() {
        let stack = match vector {
            exceptions::NMI if stacks => 1,
            exceptions::DOUBLE_FAULT if stacks => 2,
            exceptions::MACHINE_CHECK if stacks => 3,
            _ => 0,
        };
        // SAFETY: nobody else touches the table: the caller is alone, and the processor itself reads a gate only
        // on an interrupt or a fault; none is due in the middle of these two stores.
        unsafe { (*TABLE.0.get())[vector] = gate(address, stack) };
    }
}

/// Makes this processor use the table.
pub(super) fn load() {
    let pointer = DescriptorTablePointer { limit: 4095, base: VirtAddr::from_ptr(TABLE.0.get()) };
    // SAFETY: the table is a static of 256 gates whose entries are `fill`ed; an empty gate would only turn one
    // fault into another.
    unsafe { lidt(&pointer) };
}
