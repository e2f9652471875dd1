//! The guest's memory, as the model wants it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use undercroft_hosts::hyperv::{BadGpa, Guest};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, VolatileMemory};

use crate::clock::Clock;

/// Where devices have their addresses: no memory there.
const HOLE: u64 = 3 << 30;
const ABOVE: u64 = 4 << 30;

/// The ranges of memory of this size: address and bytes.
pub fn ranges(bytes: u64) -> Vec<(u64, u64)> {
    let low = bytes.min(HOLE);
    [(0, low), (ABOVE, bytes - low)].into_iter().filter(|(_, bytes)| *bytes > 0).collect()
}

/// Makes the memory and gives it to the machine.
///
/// # Errors
/// There is less, or KVM does not take it.
pub fn make(vm: &VmFd, bytes: u64) -> Result<Arc<GuestMemoryMmap>> {
    let ranges: Vec<_> = ranges(bytes).into_iter().map(|(at, bytes)| (GuestAddress(at), bytes as usize)).collect();
    let memory = GuestMemoryMmap::from_ranges(&ranges).context("there is not as much memory")?;
    for (slot, region) in memory.iter().enumerate() {
        let host = memory.get_host_address(region.start_addr()).context("a region without an address")?;
        let region = kvm_userspace_memory_region {
            slot: slot as u32,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: host as u64,
            flags: 0,
        };
        // SAFETY: the mapping is this region's own, of this length, and `machine::run` keeps the memory for as long as the program lives.
        unsafe { vm.set_user_memory_region(region) }.context("KVM does not take the memory")?;
    }
    Ok(Arc::new(memory))
}

/// Memory and time.
pub struct Ram {
    /// The memory.
    pub memory: Arc<GuestMemoryMmap>,
    /// The time.
    pub clock: Clock,
}

impl Ram {
    /// A word that the guest's processors change at the same time.
    fn word<R>(&self, gpa: u64, work: impl FnOnce(&AtomicU32) -> R) -> Result<R, BadGpa> {
        let bad = BadGpa { gpa, len: 4 };
        let slice = self.memory.get_slice(GuestAddress(gpa), 4).map_err(|_| bad)?;
        slice.get_atomic_ref::<AtomicU32>(0).map(work).map_err(|_| bad)
    }
}

impl Guest for Ram {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), BadGpa> {
        let len = into.len();
        self.memory.read_slice(into, GuestAddress(gpa)).map_err(|_| BadGpa { gpa, len })
    }

    fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), BadGpa> {
        self.memory.write_slice(bytes, GuestAddress(gpa)).map_err(|_| BadGpa { gpa, len: bytes.len() })
    }

    fn now(&self) -> u64 {
        self.clock.now()
    }

    fn load(&self, gpa: u64) -> Result<u32, BadGpa> {
        self.word(gpa, |word| word.load(Ordering::Acquire))
    }

    fn store(&self, gpa: u64, value: u32) -> Result<(), BadGpa> {
        self.word(gpa, |word| word.store(value, Ordering::Release))
    }

    fn fetch_or(&self, gpa: u64, bits: u32) -> Result<u32, BadGpa> {
        self.word(gpa, |word| word.fetch_or(bits, Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_leaves_the_hole_free() {
        assert_eq!(ranges(256 << 20), [(0, 256 << 20)]);
        assert_eq!(ranges(HOLE + 4096), [(0, HOLE), (ABOVE, 4096)]);
    }
}
