//! A page cache over any block device.
//!
//! See ADR-5 for the design.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

mod ahead;
mod broken;
mod config;
mod copy;
mod file;
mod futures;
mod group;
mod io;
mod line;
mod memory;
mod op;
mod pin;
mod shim;
mod state;
mod table;
mod volume;

#[cfg(test)]
mod tests;

/// What the guest allocates in a hard interrupt or under a spinlock ends the program (A-GEN-03, A-PC-07). A model's CPUs are on one thread, whose notes the trap would mix.
#[cfg(all(test, not(shuttle)))]
#[global_allocator]
static ALLOCATOR: undercroft_hal::hosted::TrapAlloc = undercroft_hal::hosted::TrapAlloc::strict();

pub use config::{Config, Stats};
pub use file::{Extent, File, Place};
pub use futures::{Failed, Futures};
pub use group::{Cache, Totals};
pub use op::{Done, Finish, FinishInTask, Outcome};
pub use pin::{Mapped, Pinned};
pub use state::PageState;
pub use table::PAGE;
pub use volume::aside::Aside;
pub use volume::user::UserMemory;
pub use volume::{Refused, Volume};
