//! What the hypervisor offers, as CPUID tells it (TLFS 2.4). Any context.

use bitflags::bitflags;

use super::Hypervisor;
use super::registers::leaf;

bitflags! {
    /// Privileges and features of this partition: EAX in bits 31:0, EBX in 63:32, EDX in 95:64 of leaf 0x40000003.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Features: u128 {
        /// The register of the reference counter.
        const REFERENCE_COUNTER = 1 << 1;
        /// SynIC registers.
        const SYNIC = 1 << 2;
        /// Synthetic timers.
        const TIMERS = 1 << 3;
        /// Registers of the guest's id and of the hypercall page.
        const HYPERCALLS = 1 << 5;
        /// The register of the virtual processor's index.
        const VP_INDEX = 1 << 6;
        /// The reference time page.
        const REFERENCE_TSC = 1 << 9;
        /// Registers of the rates of time-stamp counter and APIC timer.
        const FREQUENCIES = 1 << 11;
        /// The call that posts a message.
        const POST_MESSAGES = 1 << (32 + 4);
        /// The call that signals an event.
        const SIGNAL_EVENTS = 1 << (32 + 5);
        /// The partition's memory is hidden from its host.
        const ISOLATION = 1 << (32 + 22);
        /// Synthetic timers can interrupt without a message.
        const DIRECT_TIMERS = 1 << (64 + 19);
    }
}

/// What the hypervisor bounds (leaf 0x40000005).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Virtual processors at most; 0 if it does not say.
    pub processors: u32,
}

impl Features {
    /// What VMBus needs.
    pub const VMBUS: Self = Self::SYNIC.union(Self::HYPERCALLS).union(Self::POST_MESSAGES).union(Self::SIGNAL_EVENTS);

    /// Asks the processor. `None`: not under Hyper-V, nor under a hypervisor that speaks its interface.
    pub fn detect(hypervisor: &(impl Hypervisor + ?Sized)) -> Option<(Self, Limits)> {
        let [_, _, present, _] = hypervisor.cpuid(leaf::BASIC);
        if present & leaf::HYPERVISOR_PRESENT == 0 {
            return None;
        }
        let [maximum, signature @ ..] = hypervisor.cpuid(leaf::MAXIMUM);
        let named = signature == [*b"Micr", *b"osof", *b"t Hv"].map(u32::from_le_bytes);
        if !named || maximum < leaf::LIMITS || hypervisor.cpuid(leaf::INTERFACE)[0] != leaf::HV_1 {
            return None;
        }
        let [low, high, _, more] = hypervisor.cpuid(leaf::PRIVILEGES);
        let bits = u128::from(low) | u128::from(high) << 32 | u128::from(more) << 64;
        let [processors, ..] = hypervisor.cpuid(leaf::LIMITS);
        Some((Self::from_bits_retain(bits), Limits { processors }))
    }
}
