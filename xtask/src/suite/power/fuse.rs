//! What cuts the power: it is lit with a number of events, and kills a process when so many have happened.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// See the module.
#[derive(Default)]
pub struct Fuse {
    /// Events until the cut, times nothing as long as it is not lit.
    left: AtomicI64,
    process: AtomicI64,
    lit: AtomicBool,
}

impl Fuse {
    /// Lights it: the process is killed after so many more events.
    pub fn light(&self, process: u32, events: u64) {
        self.process.store(i64::from(process), Ordering::Relaxed);
        self.left.store(events as i64 + 1, Ordering::Relaxed);
        self.lit.store(true, Ordering::Release);
    }

    /// An event has happened.
    pub fn burn(&self) {
        if self.lit.load(Ordering::Acquire) && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            // It is our child and not waited for yet: its number is nobody else's. It may have ended.
            let process = self.process.load(Ordering::Relaxed);
            let _ = kill(Pid::from_raw(process as i32), Signal::SIGKILL);
        }
    }
}
