//! [`ThisMachine`]: the current thread's machine as a hypervisor.

use super::platform::host;
use crate::hyperv::Hypervisor;
use crate::irq::{MsiMessage, Slot};
use crate::xen::{self, SharedPage};

/// The vector of slot 0. Those below are the processor's own (Intel SDM volume 3, 6.2), and a model of a SynIC may refuse them.
pub const FIRST_VECTOR: u8 = 0x30;

/// The slot whose interrupt a vector is, for a machine whose messages carry the slot's number. `None` for a vector that nobody was given.
pub fn slot_of_vector(vector: u8) -> Option<Slot> {
    vector.checked_sub(FIRST_VECTOR).map(|slot| Slot(u16::from(slot)))
}

/// Asks the current thread's machine: [`Machine::cpuid`](super::Machine::cpuid) and its neighbours. A machine that is not the one of
/// this crate's users but a model of Hyper-V itself implements those four and is driven through this. One of Xen implements [`Machine::xen_call`](super::Machine::xen_call) and the three
/// behind it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThisMachine;

impl Hypervisor for ThisMachine {
    fn cpuid(&self, leaf: u32) -> [u32; 4] {
        host(|machine| machine.cpuid(leaf))
    }
    fn read_msr(&self, register: u32) -> u64 {
        host(|machine| machine.read_msr(register))
    }
    fn write_msr(&self, register: u32, value: u64) {
        host(|machine| machine.write_msr(register, value));
    }
    fn hypercall(&self, control: u64, input: u64, output: u64) -> u64 {
        host(|machine| machine.hypercall(control, input, output))
    }
    fn vector(&self, message: MsiMessage) -> u8 {
        (message.data as u8).wrapping_add(FIRST_VECTOR)
    }
}

/// Where a model of Xen has its CPUID leaves.
const XEN_LEAVES: u32 = 0x4000_0000;
/// EBX, ECX and EDX of the first: "XenVMMXenVMM".
const XEN: [u32; 3] = [0x566e_6558, 0x6558_4d4d, 0x4d4d_566e];

impl xen::Hypervisor for ThisMachine {
    fn cpuid(&self, leaf: u32) -> Option<[u32; 4]> {
        let [_, name @ ..] = host(|machine| machine.cpuid(XEN_LEAVES));
        (name == XEN).then(|| host(|machine| machine.cpuid(XEN_LEAVES + leaf)))
    }
    fn call(&self, number: u32, command: u32, argument: &mut [u8]) -> i64 {
        host(|machine| machine.xen_call(number, command, argument))
    }
    fn vcpu_call(&self, command: u32, vcpu: u32, argument: &mut [u8]) -> i64 {
        host(|machine| machine.xen_vcpu_call(command, vcpu, argument))
    }
    fn spare_frame(&self) -> Option<u64> {
        host(|machine| machine.spare_frame())
    }
    fn map_page(&self, frame: u64) -> Option<SharedPage> {
        host(|machine| machine.map_page(frame))
    }
    fn vector(&self, message: MsiMessage) -> u8 {
        Hypervisor::vector(self, message)
    }
}
