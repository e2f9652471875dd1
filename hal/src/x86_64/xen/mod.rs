//! Xen, for a guest with hardware virtualization (PVH, HVM): finding it, its console, its way to end.
//!
//! Source: Xen `public/arch-x86/cpuid.h`, `public/xen.h`. Contexts: all.

mod console;
mod hypercall;
mod processor;

use core::sync::atomic::{AtomicBool, Ordering};

use super::clock;
use super::power::Exit;

pub(super) use console::{Ring, early_write};
pub use processor::start;

static IS_HERE: AtomicBool = AtomicBool::new(false);

/// Looks for Xen and has it fill the hypercall page. First of all on the boot processor.
pub(super) fn init() {
    if let Some(first) = clock::xen_leaves() {
        hypercall::init(first);
        IS_HERE.store(true, Ordering::Relaxed);
    }
}

/// Whether this is a guest of Xen.
pub(super) fn is_here() -> bool {
    IS_HERE.load(Ordering::Relaxed)
}

/// The console's ring, if there is one. The page tables are final.
pub(super) fn console() -> Option<Ring> {
    if is_here() { Ring::find() } else { None }
}

/// Lets other domains run.
pub(super) fn give_way() {
    hypercall::give_way();
}

/// Ends the domain, and says why. Returns where there is no Xen.
pub(super) fn shut_down(exit: Exit) {
    if is_here() {
        hypercall::shut_down(match exit {
            Exit::Success | Exit::Failure => hypercall::Reason::PowerOff,
            Exit::Restart => hypercall::Reason::Reboot,
            Exit::Panic => hypercall::Reason::Crash,
        });
    }
}
