//! Xen's interface for a guest with hardware virtualization (PVH, HVM): event channels, grant tables, shared pages.
//!
//! Source: Xen's public headers (`xen/include/public`): `event_channel.h`, `grant_table.h`, `memory.h`, `hvm/`.
//!
//! The seam to the machine is the trait [`Hypervisor`]. On bare metal it is `x86_64::xen`; in a test it is a model of Xen. Everything
//! else is here and above, the same code everywhere: [`Domain`] is the interface taken into use.
//!
//! | function | contexts |
//! |---|---|
//! | [`Domain::start`], making and dropping an [`EventChannel`], [`Domain::add_grants`] | task |
//! | [`EventChannel::notify`], [`Domain::grant`], [`Domain::revoke`] | any |

mod domain;
mod events;
mod features;
mod grants;
mod page;
mod refs;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
mod wire;

pub use domain::{Counts, Domain, StartError};
pub use events::{EventChannel, Notifier};
pub use features::Features;
pub use grants::{Access, Grant, InUse, NoGrant};
pub use page::{PAGE, SharedPage};

use core::fmt;

use crate::irq::MsiMessage;

/// The number of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainId(pub u16);

/// The error that a hypercall answered with: one of Xen's errno values (`public/errno.h`), as it is there without a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub u32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Xen answered with error {}", self.0)
    }
}

impl core::error::Error for Errno {}

/// What a virtual processor under Xen can ask its hypervisor: the seam between this stack and a machine, or a model of one.
///
/// What a call's structure says is this module's: an implementation carries it out and need not check it. All calls may come from any
/// context but [`Hypervisor::map_page`], which comes from task context.
pub trait Hypervisor: Send + Sync {
    /// CPUID leaf `leaf`, counted from Xen's first, which may be moved by another interface offered beside it: EAX, EBX, ECX, EDX. `None`
    /// where there is no Xen.
    fn cpuid(&self, leaf: u32) -> Option<[u32; 4]>;

    /// A hypercall that takes a command and one structure, which it reads or writes: `memory_op` (12), `xen_version` (17), `grant_table_op`
    /// (20, with one operation), `event_channel_op` (32), `hvm_op` (34). The result is Xen's, negative for an error.
    fn call(&self, number: u32, command: u32, argument: &mut [u8]) -> i64;

    /// `vcpu_op` (24): a command, a virtual processor and a structure.
    fn vcpu_call(&self, command: u32, vcpu: u32, argument: &mut [u8]) -> i64;

    /// The number of a frame of the guest's address space where nothing is: another one each time. `None`: none is left.
    fn spare_frame(&self) -> Option<u64>;

    /// A page at such a frame, where Xen has put one of its own; or one of the domain's that the tool stack has put beside its RAM, by its frame number. The same page each time; `None` if it
    /// cannot be reached.
    fn map_page(&self, frame: u64) -> Option<SharedPage>;

    /// The vector by which an interrupt arrives that [`crate::Platform::msi_route`] gave this message.
    fn vector(&self, message: MsiMessage) -> u8 {
        message.data as u8
    }
}
