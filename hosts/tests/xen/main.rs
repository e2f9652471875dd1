//! The xenblk driver, unmodified, against the model of its host in one process: loads, faults, hosts that lie.

mod basics;
mod connecting;
mod faults;
mod hostile;
mod load;
mod rig;
mod store;

/// What the guest allocates in a hard interrupt or under a spinlock ends the program.
#[global_allocator]
static ALLOCATOR: undercroft_hal::hosted::TrapAlloc = undercroft_hal::hosted::TrapAlloc::strict();
