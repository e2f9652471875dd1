//! What CPUID tells: what the processor can under KVM, and Hyper-V in KVM's own leaves' place.

use anyhow::{Context, Result};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;
use undercroft_hosts::hyperv::Hyperv;

const FIRST: u32 = 0x4000_0000;
const LAST: u32 = 0x4fff_ffff;
const HYPERVISOR_PRESENT: u32 = 1 << 31;

/// The leaves of processor `vp`.
pub fn leaves(kvm: &Kvm, host: &Hyperv, vp: u32) -> Result<CpuId> {
    let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).context("KVM tells no CPUID leaves")?;
    let mut all: Vec<kvm_cpuid_entry2> =
        supported.as_slice().iter().filter(|entry| !(FIRST..=LAST).contains(&entry.function)).copied().collect();
    for entry in &mut all {
        match entry.function {
            1 => {
                entry.ecx |= HYPERVISOR_PRESENT;
                entry.ebx = entry.ebx & 0xffff | vp << 24 | 1 << 16;
            }
            // The x2APIC id, and no threads or cores that share anything.
            0xb | 0x1f => entry.edx = vp,
            _ => {}
        }
    }
    let ours = (FIRST..FIRST + 0x100).filter_map(|leaf| Some((leaf, host.cpuid(leaf, 0)?)));
    all.extend(ours.map(|(function, [eax, ebx, ecx, edx])| kvm_cpuid_entry2 {
        function,
        eax,
        ebx,
        ecx,
        edx,
        ..kvm_cpuid_entry2::default()
    }));
    CpuId::from_entries(&all).ok().context("too many CPUID leaves")
}
