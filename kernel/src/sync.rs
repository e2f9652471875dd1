//! The last word to every disk: what its cache holds becomes durable before the power goes off. Task context.

use undercroft_block::{Features, adapter};
use undercroft_hal::Task;

use crate::disks::Disk;
use crate::report::Report;

/// Flushes every disk that can be written, after everything else. Each that fails is a problem.
pub(crate) fn all(cx: &Task, disks: &[Disk], report: &Report) {
    if broken::is_left_out() {
        return;
    }
    for disk in disks.iter().filter(|disk| !disk.device.info().features.contains(Features::READ_ONLY)) {
        if let Some(Err(error)) = disk.volume.as_ref().map(|volume| volume.sync_all_blocking(cx)) {
            report.problem(&format_args!("what its cache held was not written: {error}"), Some(&disk.name));
        }
        let last = adapter::Disk::new(alloc::sync::Arc::clone(&disk.device), 1);
        if let Err(error) = last.flush_blocking(cx) {
            report.problem(&format_args!("the last flush failed: {error}"), Some(&disk.name));
        }
    }
}

/// A test can leave it out.
mod broken {
    #[cfg(test)]
    std::thread_local!(pub(super) static LEFT_OUT: core::cell::Cell<bool> = const { core::cell::Cell::new(false) });

    pub(super) fn is_left_out() -> bool {
        #[cfg(test)]
        return LEFT_OUT.get();
        #[cfg(not(test))]
        false
    }
}

#[cfg(test)]
pub(crate) fn leave_out(leave: bool) {
    broken::LEFT_OUT.set(leave);
}
