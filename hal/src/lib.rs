//! The ground floor of Undercroft: everything that touches the machine.
//!
//! Execution contexts and the locks that honour them, deferred work (bottom halves and the run
//! queue), interrupt routing, DMA memory, device registers, PCI, the clock. Everything above this
//! crate is `#![forbid(unsafe_code)]`; what is unsafe in the guest path is here, argued, and small.
//!
//! A program has one [`Platform`], bound at link time by [`bind_platform!`]. This crate brings two:
//! bare x86_64 (feature `x86_64`) and a hosted one (feature `hosted`) that dispatches to the
//! simulated machine of the current thread.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![deny(missing_docs)]

extern crate alloc;

mod atomic;
mod attached;
#[cfg(all(feature = "bench", not(any(loom, shuttle))))]
#[doc(hidden)]
pub mod bench;
mod broken;
pub mod clock;
pub mod context;
pub mod cpu;
pub mod dispatch;
pub mod dma;
mod everywhere;
pub mod executor;
pub mod firmware;
pub mod heap;
#[cfg(feature = "hosted")]
pub mod hosted;
pub mod hyperv;
#[cfg(all(test, not(any(loom, shuttle))))]
mod inject;
pub mod irq;
pub mod mmio;
mod mpsc;
pub mod parts;
pub mod pci;
pub mod platform;
#[cfg(put_back)]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod put_back;
#[cfg(not(put_back))]
mod put_back;
pub mod sync;
pub mod system;
pub mod task;
pub mod virtio_hal;
pub mod work;
mod work_state;
mod work_stats;
#[cfg(all(feature = "x86_64", target_os = "none"))]
pub mod x86_64;
pub mod xen;

pub use clock::{Duration, Instant};
pub use context::{BottomHalf, Context, HardIrq, Lent, Task, Unwaiting};
pub use platform::Platform;
pub use system::System;

/// Whether a panic is unwinding this thread, so that a second one would end the program: a check in a destructor asks. Never on bare metal,
/// where a panic ends everything at once.
pub fn is_unwinding() -> bool {
    #[cfg(feature = "std")]
    return std::thread::panicking();
    #[cfg(not(feature = "std"))]
    false
}
