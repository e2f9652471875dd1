#![deny(unsafe_code)]
//! A Hyper-V machine in user space, on `/dev/kvm`: it boots a PVH image that finds its disks through VMBus and nothing else.
//!
//! What a guest sees of Hyper-V (CPUID, synthetic registers, hypercalls, messages, StorVSP) is `undercroft_hosts::hyperv`, the model that the
//! driver's tests run against in one process; here it serves real processors and disks in files. KVM's own Hyper-V support is not used and
//! need not be there: registers from 0x40000000 on come to user space by a filter, the hypercall page holds a port write, and interrupts go to
//! the local APICs as messages. Beside it there are a serial port, `/dev/kvm`'s interrupt controllers, and a port that ends the machine.
//!
//! There is no PCI, and no other disk controller.

mod acpi;
mod boot;
mod clock;
mod control;
mod cpuid;
mod disks;
mod host;
mod machine;
// UNSAFETY: KVM is told where the guest's memory lies in this process.
#[expect(unsafe_code)]
mod memory;
mod options;
mod serial;
mod vcpu;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match machine::run(&options::Options::parse()) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("undercroft-vmm: {error:#}");
            ExitCode::from(1)
        }
    }
}
