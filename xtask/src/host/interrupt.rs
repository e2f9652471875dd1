//! Ctrl-C and termination: noted, so that QEMU is stopped and temporary files are removed.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Starts to take note of SIGINT, SIGTERM and SIGHUP instead of dying of them.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Without the handler the signals do what they always do.
        let _ = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed));
    });
}

pub fn came() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Ends a long command between two of its steps.
pub fn check() -> Result<()> {
    if came() { bail!("interrupted") } else { Ok(()) }
}
