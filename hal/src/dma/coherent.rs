//! [`Coherent`]: memory shared with a device while both use it.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{DmaBlock, DmaConstraints, DmaError, DmaLayout};
use crate::platform::seam;

/// A zeroed block that driver and device share. Reads are copies: what was read once stays as it was read, whatever
/// the device does afterwards. No reference into the memory is ever made.
///
/// Offsets are in bytes. An access outside the block is a bug of the driver (offsets are its own, never the host's)
/// and panics.
#[derive(Debug)]
pub struct Coherent {
    block: DmaBlock,
}

// SAFETY: the block is owned by this value; all access is by volatile or atomic operations on raw pointers.
unsafe impl Send for Coherent {}
// SAFETY: as for Send: concurrent access is made of single volatile or atomic operations, and what is not atomic
// (multi-word copies) is plain data whose coherence the ring protocol provides, on memory that a device may change anyway.
unsafe impl Sync for Coherent {}

impl Coherent {
    /// Allocates `len` zeroed bytes.
    ///
    /// # Errors
    /// [`DmaError`] when the constraints cannot be met.
    pub fn new(len: usize, constraints: DmaConstraints) -> Result<Self, DmaError> {
        let block = seam::dma_alloc(DmaLayout::new(len, constraints)?)?;
        Ok(Self { block })
    }

    /// Device address of the byte at `offset`.
    pub const fn addr(&self, offset: usize) -> u64 {
        self.block.addr + offset as u64
    }

    /// Bytes.
    pub const fn len(&self) -> usize {
        self.block.layout.len
    }

    /// Whether it is empty (it never is).
    pub const fn is_empty(&self) -> bool {
        false
    }

    #[inline]
    fn at<T>(&self, offset: usize) -> NonNull<T> {
        let inside = offset.checked_add(size_of::<T>()).is_some_and(|end| end <= self.block.len);
        assert!(inside, "offset {offset} is outside a shared block of {} bytes", self.block.len);
        // SAFETY: within the block, as just checked.
        unsafe { self.block.virt.add(offset).cast() }
    }

    /// Copies a value out.
    #[inline]
    pub fn read<T: FromBytes>(&self, offset: usize) -> T {
        // SAFETY: in bounds; any bytes make a valid T. Volatile and possibly unaligned words go through the aligned
        // path only when the type's alignment holds at this address.
        let at = self.at::<T>(offset);
        if at.is_aligned() {
            // SAFETY: in bounds and aligned; T is FromBytes.
            unsafe { at.read_volatile() }
        } else {
            // SAFETY: in bounds; T is FromBytes.
            unsafe { at.read_unaligned() }
        }
    }

    /// Copies a value in.
    #[inline]
    pub fn write<T: IntoBytes + Immutable>(&self, offset: usize, value: T) {
        let at = self.at::<T>(offset);
        if at.is_aligned() {
            // SAFETY: in bounds and aligned, in memory that this value owns and to which no reference exists.
            unsafe { at.write_volatile(value) }
        } else {
            // SAFETY: as above, without alignment.
            unsafe { at.write_unaligned(value) }
        }
    }

    /// An index of 16 bits that both sides read and write.
    ///
    /// # Panics
    /// If `offset` is odd or outside.
    #[inline]
    pub fn atomic_u16(&self, offset: usize) -> &AtomicU16 {
        let at = self.at::<AtomicU16>(offset);
        assert!(at.is_aligned());
        // SAFETY: in bounds, aligned, lives as long as self; the memory is only ever accessed by volatile or atomic
        // operations, never through a plain reference.
        unsafe { at.as_ref() }
    }

    /// An index of 32 bits that both sides read and write.
    ///
    /// # Panics
    /// If `offset` is not a multiple of 4 or outside.
    #[inline]
    pub fn atomic_u32(&self, offset: usize) -> &AtomicU32 {
        let at = self.at::<AtomicU32>(offset);
        assert!(at.is_aligned());
        // SAFETY: as in `atomic_u16`.
        unsafe { at.as_ref() }
    }

    /// Zeroes the whole block (a ring before it is used again).
    pub fn clear(&self) {
        let mut offset = 0;
        while offset + 4 <= self.len() {
            self.atomic_u32(offset).store(0, Ordering::Relaxed);
            offset += 4;
        }
        while offset < self.len() {
            self.write(offset, 0u8);
            offset += 1;
        }
    }
}

impl Drop for Coherent {
    fn drop(&mut self) {
        // SAFETY: the block came from dma_alloc and is freed here only. That no device uses it any more is the driver's
        // duty: drivers keep their rings until the device is reset (each driver's drop order is tested with the ledger).
        unsafe { seam::dma_free(self.block) }
    }
}
