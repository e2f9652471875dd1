//! The first instructions: from the PVH entry (32-bit protected mode, paging off) to Rust.
//!
//! Source: Xen `docs/misc/pvh.pandoc` and `elfnote.h` (`XEN_ELFNOTE_PHYS32_ENTRY`, type 18); Intel SDM
//! volume 3, 10.8.5 "Initializing IA-32e Mode". QEMU `-kernel`, Xen PVH, Cloud Hypervisor and Firecracker
//! enter here. `ebx` holds the physical address of `hvm_start_info`.
//!
//! The page tables made here are temporary: the first 4 GiB mapped where they lie, everything writable.
//! [`super::paging`] replaces them before anything but the boot code has run.

use core::arch::global_asm;

global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .balign 4
    .long 4                     # length of the name
    .long 8                     # length of the address
    .long 18                    # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

    .section .text.entry, "ax", @progbits
    .code32
    .global pvh_entry
pvh_entry:
    cli
    cld
    movl $boot_stack_top, %esp
    movl %ebx, %ebp             # hvm_start_info; ebp survives cpuid
    rdtsc
    movl %eax, entry_tsc
    movl %edx, entry_tsc + 4

    # Long mode and no-execute pages, or nothing.
    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb 8f
    movl $0x80000001, %eax
    cpuid
    btl $29, %edx
    jnc 8f
    btl $20, %edx
    jnc 8f

    # One top table, one table of 1 GiB entries, four of 2 MiB pages.
    movl $boot_tables, %edi
    leal 0x1003(%edi), %eax
    movl %eax, (%edi)
    leal 0x2003(%edi), %eax
    movl $4, %ecx
2:  movl %eax, 0x1000(%edi)
    addl $0x1000, %eax
    addl $8, %edi
    loop 2b
    movl $boot_tables + 0x2000, %edi
    movl $0x83, %eax
    movl $2048, %ecx
3:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 3b

    movl $0x20, %eax            # CR4.PAE
    movl %eax, %cr4
    movl $boot_tables, %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx      # EFER: long mode, no-execute
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl $0x80010033, %eax      # CR0: PG WP NE ET MP PE; caches on
    movl %eax, %cr0
    lgdt boot_gdt_pointer
    pushl $8
    pushl $boot_long
    lret

    # The processor cannot run the image: say so on the serial line and stop with the panic value.
8:  movl $boot_no_long_mode, %esi
9:  lodsb
    testb %al, %al
    jz 7f
    movw $0x3F8, %dx
    outb %al, %dx
    jmp 9b
7:  movl $0x12, %eax
    movw $0xF4, %dx
    outl %eax, %dx
6:  hlt
    jmp 6b

    .code64
boot_long:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl %ebp, %edi
    xorl %ebp, %ebp             # the end of every backtrace
    call {start}
    ud2

    .section .rodata.entry, "a", @progbits
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF    # 64-bit code
    .quad 0x00CF93000000FFFF    # data
boot_gdt_pointer:
    .word 23
    .long boot_gdt
boot_no_long_mode:
    .asciz "undercroft: this processor has no long mode or no no-execute pages\r\n"

    .section .data.entry, "aw", @progbits
    .balign 8
entry_tsc:
    .quad 0

    .section .bss.entry, "aw", @nobits
    .balign 4096
boot_tables:
    .skip 0x6000
boot_stack:
    .skip 0x8000
boot_stack_top:
    "#,
    start = sym super::start::start,
    options(att_syntax)
);

unsafe extern "C" {
    safe static entry_tsc: u64;
}

/// Returns the time-stamp counter as it was at the image's first instruction.
pub(super) fn tsc_at_entry() -> u64 {
    entry_tsc
}
