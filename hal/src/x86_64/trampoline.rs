//! The first instructions of the other processors: from real mode to Rust.
//!
//! Source: Intel SDM volume 3, 10.4.4 (the start-up IPI's vector is the page number of the first instruction, below
//! 1 MiB) and 10.8.5 "Initializing IA-32e Mode".
//!
//! What lies below 1 MiB is as little as can be: it enters protected mode, with paging off, and jumps into the image,
//! whose text is mapped where it lies. So the low page needs no executable mapping, and nothing is ever writable and
//! executable. Any number of processors may come this way at once: each takes a ticket, which is its number, and with it
//! a stack. One that comes when tickets are over halts for good.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::cpu::MAX_CPUS;

global_asm!(
    r#"
    .section .rodata.trampoline, "a", @progbits
    .balign 16
    .code16
trampoline:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl trampoline_gdt_pointer - trampoline
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x08, $trampoline_protected
trampoline_gdt_pointer:
    .word 31
    .long trampoline_gdt
trampoline_end:

    .balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF    # 32-bit code
    .quad 0x00CF93000000FFFF    # data
    .quad 0x00AF9B000000FFFF    # 64-bit code

    .section .text.entry, "ax", @progbits
    .code32
trampoline_protected:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $0x20, %eax            # CR4.PAE
    movl %eax, %cr4
    movl {tables}, %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx      # EFER: long mode, no-execute
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl $0x80010033, %eax      # CR0: PG WP NE ET MP PE; caches on
    movl %eax, %cr0
    ljmpl $0x18, $trampoline_long

    .code64
trampoline_long:
    movl $1, %edi
    lock xaddl %edi, {tickets}
    cmpl {limit}, %edi
    jae 2f
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movq {stacks}(, %rdi, 8), %rsp
    xorl %ebp, %ebp             # the end of every backtrace
    call {start}
    ud2
2:  cli
    hlt
    jmp 2b
    "#,
    tables = sym TABLES,
    tickets = sym TICKETS,
    limit = sym LIMIT,
    stacks = sym STACKS,
    start = sym super::processors::start,
    options(att_syntax)
);

unsafe extern "C" {
    safe static trampoline: u8;
    safe static trampoline_end: u8;
}

/// Physical address of the page tables, below 4 GiB.
static TABLES: AtomicU32 = AtomicU32::new(0);
/// The number that the next processor gets.
static TICKETS: AtomicU32 = AtomicU32::new(1);
/// The first number that is not given out. Zero while nobody may come.
static LIMIT: AtomicU32 = AtomicU32::new(0);
/// By number, the end of the processor's stack.
static STACKS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Lays the trampoline into the page frame at physical address `page`, seen at `seen`.
///
/// # Safety
/// The frame, below 1 MiB, is mapped writable at `seen` and nobody's. `tables`, below 4 GiB, is the top page table.
pub(super) unsafe fn lay(seen: *mut u8, tables: u32) {
    TABLES.store(tables, Ordering::Relaxed);
    let start = &raw const trampoline;
    let bytes = (&raw const trampoline_end).addr() - start.addr();
    // SAFETY: the code is a few dozen bytes of the image's constants; the frame is the caller's word.
    unsafe { core::ptr::copy_nonoverlapping(start, seen, bytes) };
}

/// Gives number `number` a stack that ends at `top`. Numbers are given stacks in rising order.
pub(super) fn stack(number: usize, top: u64) {
    STACKS[number].store(top, Ordering::Relaxed);
}

/// Lets processors come as far as number `last`, each of which has a stack.
pub(super) fn open(last: usize) {
    LIMIT.store(last as u32 + 1, Ordering::SeqCst);
}

/// How many numbers are given out, the boot processor's with them.
pub(super) fn given() -> usize {
    (TICKETS.load(Ordering::Acquire).min(LIMIT.load(Ordering::Acquire)) as usize).max(1)
}

/// Lets nobody come any more, and tells how many came, the boot processor with them.
pub(super) fn close() -> usize {
    // A ticket beyond any limit from now on; the number before is what was given out.
    const OVER: u32 = 1 << 31;
    let given = TICKETS.swap(OVER, Ordering::AcqRel);
    (given.min(LIMIT.swap(0, Ordering::AcqRel)) as usize).max(1)
}
