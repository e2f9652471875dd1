//! Callouts: timers that cannot be used after free, on an exact wheel with bounded work per step.
//!
//! See ADR-3 for the design and `docs/callouts.md` for the races that it ends.

#![cfg_attr(not(test), no_std)]
#![deny(missing_docs)]

extern crate alloc;

pub mod wheel;
