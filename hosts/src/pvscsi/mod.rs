//! VMware's paravirtual SCSI host adapter, as the device's side.
//!
//! Source: what VMware's public headers declare of the interface (Linux `drivers/scsi/vmw_pvscsi.h`, FreeBSD `pvscsi.h`), and what QEMU's
//! `hw/scsi/vmw_pvscsi.c` makes of it; where the two worlds differ there is a [`Knobs`]. Honest by default; strict: what a driver does
//! against the interface is a [`Breach`].

mod breach;
mod commands;
mod consts;
mod device;
mod fault;
mod request;
mod rings;
mod work;

pub use breach::Breach;
pub use device::{Layout, Pvscsi};
pub use fault::{Count, Fault, FaultScript, Knobs};
