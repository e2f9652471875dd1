//! The storvsc driver, unmodified, against the model of its host in one process: every situation that is known to go wrong, loads over several
//! channels, and hosts that lie.

mod handover;
mod hostile;
mod load;
mod rig;
mod situations;

/// What the guest allocates in a hard interrupt or under a spinlock ends the program.
#[global_allocator]
static ALLOCATOR: undercroft_hal::hosted::TrapAlloc = undercroft_hal::hosted::TrapAlloc::strict();
