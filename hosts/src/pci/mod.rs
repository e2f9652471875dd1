//! What every PCI device model has: configuration space with capabilities and BARs, and MSI-X.
//!
//! Source: PCI Local Bus 3.0, chapter 6.

mod config;
mod msix;

pub use config::{BarKind, ConfigSpace, Identity};
pub use msix::Msix;
