//! The seam of [`crate::xen`] on bare metal.
//!
//! UNSAFETY: hypercalls with structures by address.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use super::hypercall;
use crate::context::Task;
use crate::x86_64::{clock, memory, paging, registers};
use crate::xen::{Domain, Hypervisor, PAGE, SharedPage, StartError};

/// `vcpu_op`.
const VCPU: u64 = 24;
/// Where nothing is in a guest of Xen without PCI devices: above what its RAM may reach below 4 GiB, and below the tool stack's pages and the
/// tables. Its Xen puts no RAM beyond 0xF0000000 there (`hvmloader/config.h`, `libxl_dom.c`).
const SPARE: u64 = 0xF800_0000 / PAGE as u64;
const SPARE_COUNT: u64 = 256;

/// The next spare frame.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The processor that this code runs on. Only [`Domain`] is given one: what is called, and with what, is its affair.
#[derive(Debug)]
struct Processor;

impl Hypervisor for Processor {
    fn cpuid(&self, leaf: u32) -> Option<[u32; 4]> {
        let found = registers::cpuid(clock::xen_leaves()? + leaf, 0);
        Some([found.eax, found.ebx, found.ecx, found.edx])
    }

    fn call(&self, number: u32, command: u32, argument: &mut [u8]) -> i64 {
        // SAFETY: the structure is what the command takes, by the contract of `Domain`, and stays for the call. A call that takes a count
        // is told one.
        unsafe {
            hypercall::call(u64::from(number), [u64::from(command), argument.as_mut_ptr().addr() as u64, 1, 0, 0])
        }
    }

    fn vcpu_call(&self, command: u32, vcpu: u32, argument: &mut [u8]) -> i64 {
        let place = argument.as_mut_ptr().addr() as u64;
        // SAFETY: as in `call`.
        unsafe { hypercall::call(VCPU, [u64::from(command), u64::from(vcpu), place, 0, 0]) }
    }

    fn spare_frame(&self) -> Option<u64> {
        let index = NEXT.fetch_add(1, Ordering::Relaxed);
        let frame = SPARE + index;
        (index < SPARE_COUNT && !memory::is_ram(frame * PAGE as u64, PAGE as u64)).then_some(frame)
    }

    fn map_page(&self, frame: u64) -> Option<SharedPage> {
        let address = frame.checked_mul(PAGE as u64).filter(|&address| !memory::is_ram(address, PAGE as u64))?;
        let page = paging::map_beside(address)?;
        // SAFETY: no RAM of the heaps, mapped just now and for ever, and used by way of such pages only.
        Some(unsafe { SharedPage::new(page) })
    }
}

/// Takes the interface into use, on every CPU. Once.
///
/// # Errors
/// [`StartError`]; [`StartError::Unsupported`] where the hypervisor is another.
pub fn start(cx: &Task) -> Result<Domain, StartError> {
    Domain::start(cx, Arc::new(Processor))
}
