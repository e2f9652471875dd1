//! A PIIX bus-master IDE controller and its drives, from the device's side.
//!
//! Sources: Intel 82371SB (PIIX3) and 82371AB (PIIX4) datasheets, the IDE chapters; Programming Interface for Bus Master IDE Controllers 1.0
//! (SFF-8038i), abbreviated BM here; ATA/ATAPI-6 (T13/1410D), abbreviated ATA, and ACS-2 for DATA SET MANAGEMENT. Strict: whatever a driver does
//! against them is recorded as a [`Breach`]. Honest, unless a [`FaultScript`] says otherwise.

mod breach;
mod bus_master;
mod channel;
mod dma;
mod drive;
mod execute;
mod fault;
mod identify;
mod piix;

pub use breach::Breach;
pub use channel::Channel;
pub use drive::{Drive, DriveKind, Settings};
pub use fault::{Decision, Fault, FaultScript};
pub use piix::{Mode, Piix};
