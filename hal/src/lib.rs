//! Execution contexts, interrupt-aware locks, deferred work, heaps, DMA and device access.
#![no_std]
#![cfg_attr(test, allow(unused_extern_crates))]

#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod firmware;
#[cfg(all(feature = "x86_64", target_os = "none"))]
pub mod x86_64;
