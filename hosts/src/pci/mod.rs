//! What every PCI device model has: configuration space with capabilities and BARs, MSI and MSI-X.
//!
//! Source: PCI Local Bus 3.0, chapter 6.

mod config;
mod msi;
mod msix;

pub use config::{BarKind, ConfigSpace, Identity};
pub use msi::Msi;
pub use msix::Msix;
