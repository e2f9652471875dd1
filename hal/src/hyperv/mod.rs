//! Hyper-V's hypervisor interface: detection, hypercalls, the synthetic interrupt controller (SynIC), for the guest.
//!
//! Source: Hyper-V Top Level Functional Specification 6.0b, chapters 2 (feature discovery), 3 (hypercalls), 11 (SynIC).
//!
//! The seam to the machine is the trait [`Hypervisor`]: five questions that a processor answers by an instruction each. On bare metal it
//! is `x86_64::hyperv`; in a test it is any model of the host's side. Everything else is here and above, the same code everywhere:
//! [`Partition`] is the interface taken into use.
//!
//! | function of a [`Partition`] | contexts |
//! |---|---|
//! | [`start`](Partition::start), [`stop`](Partition::stop) | task |
//! | [`post`](Partition::post), [`signal`](Partition::signal) | any |
//! | [`listen`](Partition::listen), [`unlisten`](Partition::unlisten) | bottom half, task |
//! | [`take_message`](Partition::take_message) | bottom half, task; on [`MESSAGES_CPU`] |

mod call;
mod farewell;
mod features;
mod partition;
pub(crate) mod registers;
mod synic;
pub mod time;

pub use call::{CallError, Status};
pub(crate) use farewell::Registered;
pub use farewell::last_words;
pub use features::{Features, Limits};
pub use partition::{Calls, MESSAGES_CPU, Partition, StartError};
pub use synic::{FLAGS, Message, TooManyListeners};

use crate::irq::MsiMessage;

/// What a virtual processor under Hyper-V can ask its hypervisor: the seam between this stack and a machine, or a model of one.
///
/// Registers belong to the virtual processor that the caller runs on, which has interrupts off or is in a bottom half. What is written to
/// them, and the addresses in a hypercall, are this module's: an implementation carries them out and need not check them. All calls
/// may come from any context.
pub trait Hypervisor: Send + Sync {
    /// CPUID: EAX, EBX, ECX, EDX of a leaf; zeros for one that there is not.
    fn cpuid(&self, leaf: u32) -> [u32; 4];
    /// RDMSR of a synthetic register (0x40000000 and up).
    fn read_msr(&self, register: u32) -> u64;
    /// WRMSR of a synthetic register.
    fn write_msr(&self, register: u32, value: u64);
    /// Calls the hypercall page: RCX, RDX and R8; the result is RAX. Without the fast bit in `control` the other two are guest physical
    /// addresses, of input and output.
    fn hypercall(&self, control: u64, input: u64, output: u64) -> u64;

    /// The guest physical address of the page that [`Hypervisor::hypercall`] calls, for the hypervisor to put its code there. `None`: that is
    /// done otherwise, and any page of the guest's memory will do.
    fn hypercall_page(&self) -> Option<u64> {
        None
    }

    /// The vector by which an interrupt arrives that [`crate::Platform::msi_route`] gave this message.
    fn vector(&self, message: MsiMessage) -> u8 {
        message.data as u8
    }
}
