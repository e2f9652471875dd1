//! Reaching what the firmware and the loader left in physical memory.
//!
//! Contexts: the boot code and task.

use super::memory;
use super::paging;
use crate::firmware::acpi;

/// Physical memory through the read-only window, mapped as it is asked for.
pub(super) struct Window;

impl acpi::Memory for Window {
    fn read(&self, address: u64, bytes: usize) -> Option<&[u8]> {
        let seen = paging::map_firmware(address, bytes)?;
        // SAFETY: the range was just mapped, for ever, and nothing of ours writes to it: RAM that the memory map calls
        // usable is given to the heaps only after the tables were read, and tables do not lie in it.
        Some(unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(seen as usize), bytes) })
    }
}

/// Bytes at a physical address below 4 GiB, under the entry's identity map.
///
/// # Safety
/// Only before [`paging::init`], and the result must not be used after it or after a write to that memory.
pub(super) unsafe fn early(address: u64, bytes: usize) -> Option<&'static [u8]> {
    let end = address.checked_add(bytes as u64)?;
    if address == 0 || end > 1 << 32 {
        return None;
    }
    // SAFETY: the entry's tables map all below 4 GiB; the rest is the caller's part.
    Some(unsafe { core::slice::from_raw_parts(memory::pointer(address), bytes) })
}
