#![forbid(unsafe_code)]
//! The other end of every ring: device models and the simulated machine that they plug into.
//!
//! For tests and tools; never part of a guest. Each model is written from the device's specification as the host side, shares no
//! code with the drivers, is honest by default, records every breach of the specification by the driver ([`virtio::Breach`]), and takes a script
//! of faults ([`virtio::FaultScript`]). A [`Machine`] is single-threaded and deterministic from its seed: at every call that the guest makes
//! into `hal` it may let devices work and deliver interrupts, as its [`Schedule`] says.
//!
//! ```
//! use undercroft_hosts::{Config, Disk, Machine, virtio};
//!
//! let machine = Machine::new(Config::default());
//! let disk = Disk::new(2048);
//! let blk = machine.add_virtio_pci(virtio::Blk::new(disk.clone()));
//! machine.run(|task| {
//!     assert_eq!(undercroft_hal::pci::devices(task).len(), 1); // bind a driver here, and use it
//! });
//! blk.with(|device| assert_eq!(device.breaches(), []));
//! ```

pub mod ata;
mod disk;
pub mod hyperv;
mod machine;
pub mod pci;
pub mod pvscsi;
mod random;
pub mod rig;
mod script;
pub mod scsi;
pub mod virtio;
pub mod xen;

pub use disk::{Disk, DiskError, SECTOR};
pub use machine::{Bus, Config, Device, Handle, Machine, Schedule, Space};
pub use random::Random;
pub use script::Script;
