//! PCI functions: finding them, their registers and capabilities, MSI and MSI-X, slots whose occupant comes and goes.
//!
//! Source: PCI Local Bus 3.0 chapters 6.1 to 6.8; PCI-to-PCI bridge 1.2. Enumeration is that of the `virtio-drivers` crate, over the
//! platform's configuration access; capability walks are our own, bounded, because configuration space is the host's word. Task context.

mod assign;
mod config;
mod function;
mod msi;
mod msix;
mod slot;

pub use config::Address;
pub(crate) use config::Segment;
pub use function::{Bar, Capability, Function, PciError, behind, devices};
pub use msi::Msi;
pub use msix::Msix;
pub use slot::{HotSlot, SlotState, slots};
