//! Segment descriptors and the task-state segment, per processor.
//!
//! Source: Intel SDM volume 3, 3.5 and 8.7. Long mode needs one code segment, one data segment, and the
//! task-state segment for the stacks of NMI, double fault and machine check.

use core::arch::asm;
use core::cell::UnsafeCell;

use ::x86_64::VirtAddr;
use ::x86_64::instructions::tables::{lgdt, load_tss};
use ::x86_64::registers::segmentation::SegmentSelector;
use ::x86_64::structures::DescriptorTablePointer;
use ::x86_64::structures::tss::TaskStateSegment;

use crate::cpu::MAX_CPUS;

/// Selector of the code segment.
pub(super) const CODE: u16 = 0x08;
/// Selector of the data segment.
const DATA: u16 = 0x10;
/// Selector of the task-state segment.
const TASK: u16 = 0x18;

/// Stacks that the interrupt descriptor table names: 1 NMI, 2 double fault, 3 machine check.
pub(super) const FAULT_STACKS: usize = 3;

struct Segments {
    gdt: [u64; 5],
    tss: TaskStateSegment,
}

struct PerCpuSegments([UnsafeCell<Segments>; MAX_CPUS]);

// SAFETY: entry `n` is written only by `load(n)`, which processor `n` calls once while coming up; afterwards only
// the processor itself reads it.
unsafe impl Sync for PerCpuSegments {}

static SEGMENTS: PerCpuSegments =
    PerCpuSegments([const { UnsafeCell::new(Segments { gdt: [0; 5], tss: TaskStateSegment::new() }) }; MAX_CPUS]);

/// Fills and loads this processor's segments; `tops` are the ends of its fault stacks.
///
/// # Safety
/// `cpu` must be this processor's number, and each of `tops` the end of a mapped stack used by nothing else.
///
/// # Panics
/// If `cpu` is [`MAX_CPUS`] or more.
pub(super) unsafe fn load(cpu: usize, tops: [u64; FAULT_STACKS]) {
    let segments = SEGMENTS.0[cpu].get();
    // SAFETY: this processor alone writes its entry, before loading it.
    let (gdt, tss) = unsafe { (&raw mut (*segments).gdt, &raw mut (*segments).tss) };
    let base = tss.addr() as u64;
    let limit = size_of::<TaskStateSegment>() as u64 - 1;
    // SAFETY: as above. The words are: null, 64-bit code, data, and the two halves of an available 64-bit TSS.
    unsafe {
        for (index, top) in tops.into_iter().enumerate() {
            (*tss).interrupt_stack_table[index] = VirtAddr::new(top);
        }
        *gdt = [
            0,
            0x00AF_9B00_0000_FFFF,
            0x00CF_9300_0000_FFFF,
            limit | (base & 0x00FF_FFFF) << 16 | 0x89 << 40 | (base >> 24 & 0xFF) << 56,
            base >> 32,
        ];
    }
    // SAFETY: the table lives forever and its selectors are as named above. Reloading CS goes by a far return to
    // the next instruction; DS, ES and SS take the flat data segment; FS and GS bases are left alone.
    unsafe {
        lgdt(&DescriptorTablePointer { limit: 39, base: VirtAddr::from_ptr(gdt) });
        asm!(
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ds, {data:e}",
            "mov es, {data:e}",
            "mov ss, {data:e}",
            code = const CODE,
            data = in(reg) u32::from(DATA),
            scratch = out(reg) _,
        );
        load_tss(SegmentSelector(TASK));
    }
}
