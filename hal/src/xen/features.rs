//! What the hypervisor says of itself by CPUID (`public/arch-x86/cpuid.h`). Any context.

use super::Hypervisor;

/// Xen as this domain sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Major and minor version.
    pub version: (u16, u16),
    /// This domain's number, where it is told.
    pub domain: Option<u16>,
    /// Whether each processor can have its own vector for event channels.
    pub has_upcall_vector: bool,
}

/// Bits of EAX of leaf 4.
const DOMAIN_PRESENT: u32 = 1 << 4;
const UPCALL_VECTOR: u32 = 1 << 6;

impl Features {
    /// Asks the processor. `None` where there is no Xen.
    pub fn detect(hypervisor: &(impl Hypervisor + ?Sized)) -> Option<Self> {
        let [last, ..] = hypervisor.cpuid(0)?;
        let [version, ..] = hypervisor.cpuid(1)?;
        // Leaves are counted from the first, whose own number is in the last one's upper bits.
        let [flags, _, domain, _] = if last & 0xFF >= 4 { hypervisor.cpuid(4)? } else { [0; 4] };
        Some(Self {
            version: ((version >> 16) as u16, version as u16),
            domain: (flags & DOMAIN_PRESENT != 0).then_some(domain as u16),
            has_upcall_vector: flags & UPCALL_VECTOR != 0,
        })
    }
}

/// Xen's number of the processor that this runs on, if it tells one.
pub(super) fn this_vcpu(hypervisor: &(impl Hypervisor + ?Sized)) -> Option<u32> {
    const VCPU_PRESENT: u32 = 1 << 3;
    let [flags, vcpu, ..] = hypervisor.cpuid(4)?;
    (flags & VCPU_PRESENT != 0).then_some(vcpu)
}
