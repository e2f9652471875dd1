//! Leaves, registers and their bits (TLFS 2.4, 3.13, 11.8, 12). Types and constants only.

/// CPUID leaves.
pub(crate) mod leaf {
    pub(crate) const BASIC: u32 = 1;
    pub(crate) const MAXIMUM: u32 = 0x4000_0000;
    pub(crate) const INTERFACE: u32 = 0x4000_0001;
    pub(crate) const PRIVILEGES: u32 = 0x4000_0003;
    pub(crate) const LIMITS: u32 = 0x4000_0005;
    /// Leaf 1, ECX: a hypervisor is present.
    pub(crate) const HYPERVISOR_PRESENT: u32 = 1 << 31;
    /// "Hv#1".
    pub(crate) const HV_1: u32 = 0x3123_7648;
}

pub(crate) const GUEST_OS_ID: u32 = 0x4000_0000;
pub(crate) const HYPERCALL: u32 = 0x4000_0001;
pub(crate) const VP_INDEX: u32 = 0x4000_0002;
pub(crate) const TIME_REF_COUNT: u32 = 0x4000_0020;
pub(crate) const SCONTROL: u32 = 0x4000_0080;
pub(crate) const SIEFP: u32 = 0x4000_0082;
pub(crate) const SIMP: u32 = 0x4000_0083;
pub(crate) const EOM: u32 = 0x4000_0084;
pub(crate) const SINT0: u32 = 0x4000_0090;
#[cfg_attr(
    not(all(feature = "x86_64", target_os = "none")),
    expect(dead_code, reason = "the bare platform's clock and alarm")
)]
pub(crate) mod bare {
    pub(crate) const REFERENCE_TSC: u32 = 0x4000_0021;
    pub(crate) const TSC_FREQUENCY: u32 = 0x4000_0022;
    pub(crate) const APIC_FREQUENCY: u32 = 0x4000_0023;
    pub(crate) const STIMER0_CONFIG: u32 = 0x4000_00b0;
    pub(crate) const STIMER0_COUNT: u32 = 0x4000_00b1;
    /// STIMER configuration: enabled by a count, delivered straight to a vector (bits 11:4).
    pub(crate) const STIMER_AUTO_ENABLE: u64 = 1 << 3;
    pub(crate) const STIMER_VECTOR_SHIFT: u32 = 4;
    pub(crate) const STIMER_DIRECT: u64 = 1 << 12;
}

/// The enable bit of the registers that name a page, and of SCONTROL.
pub(crate) const ENABLE: u64 = 1;
/// A SINT that raises nothing.
pub(crate) const SINT_MASKED: u64 = 1 << 16;
/// The SINT that VMBus uses.
pub(crate) const VMBUS_SINT: u32 = 2;

/// An open-source guest (bit 63), of no registered type: this project's version 0.1.
pub(crate) const OS_ID: u64 = 1 << 63 | 0x55 << 56 | 1 << 16;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
/// Bytes of a SINT's message slot, and of its event flags.
pub(crate) const SLOT: usize = 256;
