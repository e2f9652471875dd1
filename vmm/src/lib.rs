#![deny(unsafe_code)]
//! A Hyper-V machine in user space, on `/dev/kvm`: it boots a PVH image that finds its disks through VMBus and nothing else.
//!
//! What a guest sees of Hyper-V (CPUID, synthetic registers, hypercalls, messages, StorVSP) is `undercroft_hosts::hyperv`, the model that the
//! driver's tests run against in one process; here it serves real processors and disks in files. KVM's own Hyper-V support is not used and
//! need not be there: registers from 0x40000000 on come to user space by a filter, the hypercall page holds a port write, and interrupts go to
//! the local APICs as messages. Beside it there are a serial port, `/dev/kvm`'s interrupt controllers, and a port that ends the machine.
//!
//! There is no PCI, and no other disk controller.
//!
//! [`host`] is the model among threads, which a test uses without any KVM.

mod acpi;
mod boot;
pub mod clock;
mod control;
mod cpuid;
mod disks;
pub mod host;
pub mod machine;
// UNSAFETY: KVM is told where the guest's memory lies in this process.
#[expect(unsafe_code)]
pub mod memory;
pub mod options;
mod serial;
mod vcpu;
