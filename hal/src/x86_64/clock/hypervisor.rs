//! What CPUID tells about the hypervisor and about rates.
//!
//! Source: Intel SDM volume 2, CPUID leaves 0x15 and 0x16; the hypervisor leaves at 0x40000000; "CPUID timing
//! information" 0x40000010 as VMware defined it and KVM under QEMU offers it; Xen's time leaf.

use crate::x86_64::registers::cpuid;

/// The first leaf of the hypervisor that signs with `signature`, if there is one. A hypervisor that offers several
/// interfaces puts them 0x100 leaves apart.
pub(super) fn leaves(signature: &[u8; 12]) -> Option<u32> {
    const FIRST: u32 = 0x4000_0000;
    if cpuid(1, 0).ecx & 1 << 31 == 0 {
        return None;
    }
    (0..4).map(|index| FIRST + index * 0x100).find(|&leaf| signature_at(leaf) == *signature)
}

fn signature_at(leaf: u32) -> [u8; 12] {
    let found = cpuid(leaf, 0);
    let mut signature = [0; 12];
    for (to, from) in signature.chunks_exact_mut(4).zip([found.ebx, found.ecx, found.edx]) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    signature
}

/// Xen's first leaf.
pub(in super::super) fn xen_leaves() -> Option<u32> {
    leaves(b"XenVMMXenVMM")
}

/// The hypervisor's name, for people.
pub(in super::super) fn name() -> &'static str {
    const NAMES: [(&[u8; 12], &str); 5] = [
        (b"KVMKVMKVM\0\0\0", "KVM"),
        (b"TCGTCGTCGTCG", "QEMU TCG"),
        (b"XenVMMXenVMM", "Xen"),
        (b"Microsoft Hv", "Hyper-V"),
        (b"VMwareVMware", "VMware"),
    ];
    let known = NAMES.into_iter().find(|(signature, _)| leaves(signature).is_some());
    match known {
        Some((_, name)) => name,
        None if cpuid(1, 0).ecx & 1 << 31 != 0 => "unknown hypervisor",
        None => "no hypervisor",
    }
}

/// Rates in hertz, where they are told.
#[derive(Clone, Copy, Default)]
pub(super) struct Rates {
    pub(super) tsc: Option<u64>,
    pub(super) timer: Option<u64>,
}

/// Exact rates that CPUID tells.
pub(super) fn tsc_rate() -> Rates {
    let kilohertz = |value: u32| (value != 0).then_some(u64::from(value) * 1000);
    if let Some(first) = xen_leaves() {
        // Leaf 3, subleaf 0: the guest's rate in kHz. The timer runs at Xen's fixed 100 MHz.
        return Rates { tsc: kilohertz(cpuid(first + 3, 0).ecx), timer: Some(100_000_000) };
    }
    if leaves(b"TCGTCGTCGTCG").is_some() {
        // QEMU's own local timer counts nanoseconds (`hw/intc/apic.c`).
        return Rates { tsc: None, timer: Some(1_000_000_000) };
    }
    let told = super::hyperv::rates();
    if told.tsc.is_some() {
        return told;
    }
    let timing = [&b"KVMKVMKVM\0\0\0"[..], b"VMwareVMware"].into_iter().find_map(|signature| {
        let first = leaves(signature.first_chunk()?)?;
        (cpuid(first, 0).eax >= first + 0x10).then(|| cpuid(first + 0x10, 0))
    });
    if let Some(timing) = timing
        && timing.eax != 0
    {
        return Rates { tsc: kilohertz(timing.eax), timer: kilohertz(timing.ebx) };
    }
    if cpuid(0, 0).eax >= 0x15 {
        let ratio = cpuid(0x15, 0);
        if ratio.eax != 0 && ratio.ebx != 0 && ratio.ecx != 0 {
            let crystal = u64::from(ratio.ecx);
            return Rates { tsc: Some(crystal * u64::from(ratio.ebx) / u64::from(ratio.eax)), timer: Some(crystal) };
        }
    }
    Rates::default()
}

/// The rate that the processor is sold with: right to the megahertz at best.
pub(super) fn nominal_rate() -> Option<u64> {
    if cpuid(0, 0).eax < 0x16 {
        return None;
    }
    let megahertz = cpuid(0x16, 0).eax & 0xFFFF;
    (megahertz != 0).then_some(u64::from(megahertz) * 1_000_000)
}
