//! The hypervisor's interface on bare metal: CPUID, RDMSR, WRMSR, and a call of the hypercall page.
//!
//! Source: TLFS 3.13 (establishing the hypercall interface), 3.7 (its registers). Contexts: all.
//!
//! UNSAFETY: instructions that only the processor has, and a page whose code the hypervisor writes.

use alloc::sync::Arc;
use core::arch::{asm, global_asm};

use super::registers;
use crate::context::Task;
use crate::hyperv::{Features, Hypervisor, Partition, StartError};

// Until the hypervisor puts its code here, a call says that there is no such call.
global_asm!(
    r#"
    .section .text.hypercall_page, "ax"
    .balign 4096
hypercall_page:
    mov eax, 2
    ret
    .balign 4096, 0xcc
    "#
);

unsafe extern "C" {
    safe static hypercall_page: u8;
}

/// The first synthetic register, and how many there may be.
const FIRST: u32 = 0x4000_0000;
const COUNT: u32 = 0x1000;

/// The processor that this code runs on. Only [`Partition`] is given one: what is written, and where it points, is its affair.
#[derive(Debug)]
struct Processor;

impl Hypervisor for Processor {
    fn cpuid(&self, leaf: u32) -> [u32; 4] {
        let found = registers::cpuid(leaf, 0);
        [found.eax, found.ebx, found.ecx, found.edx]
    }

    fn read_msr(&self, register: u32) -> u64 {
        if register.wrapping_sub(FIRST) >= COUNT {
            return 0;
        }
        // SAFETY: a synthetic register; `Partition` asks only for those that CPUID shows.
        unsafe { registers::read_msr(register) }
    }

    fn write_msr(&self, register: u32, value: u64) {
        if register.wrapping_sub(FIRST) >= COUNT {
            return;
        }
        // SAFETY: a synthetic register that CPUID shows, written by `Partition` only, which owns the pages that it names.
        unsafe { registers::write_msr(register, value) };
    }

    fn hypercall(&self, control: u64, input: u64, output: u64) -> u64 {
        let answer;
        // SAFETY: the page holds the code above, or the hypervisor's, which keeps to TLFS 3.7: it changes the registers named here, and
        // memory only as the call says; `Partition` passes addresses of pages that it owns. No SSE state exists on this target.
        unsafe {
            asm!(
                "call {page}",
                page = sym hypercall_page,
                inlateout("rcx") control => _,
                inlateout("rdx") input => _,
                inlateout("r8") output => _,
                lateout("rax") answer,
                lateout("r9") _, lateout("r10") _, lateout("r11") _,
            );
        }
        answer
    }

    fn hypercall_page(&self) -> Option<u64> {
        // The image lies where it was linked: physical and virtual addresses are alike.
        Some((&raw const hypercall_page).addr() as u64)
    }
}

/// Takes the interface into use, on every CPU.
///
/// # Errors
/// [`StartError`]; [`StartError::Unsupported`] where the hypervisor is another.
pub fn start(cx: &Task) -> Result<Arc<Partition>, StartError> {
    Partition::start(cx, Arc::new(Processor))
}

/// What this hypervisor offers for telling the time, if it is Hyper-V.
pub(super) fn features() -> Features {
    Features::detect(&Processor).map_or(Features::empty(), |(features, _)| features)
}
