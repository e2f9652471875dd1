//! [`Coherent`]: memory shared with a device while both use it.

use core::mem::MaybeUninit;
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::block::Block;
use super::{DmaConstraints, DmaError};

/// A zeroed block that driver and device share. Reads are copies: what was read once stays as it was read, whatever
/// the device does afterwards. No reference into the memory is ever made.
///
/// Offsets are in bytes. An access outside the block is a bug of the driver (offsets are its own, never the host's)
/// and panics.
#[derive(Debug)]
pub struct Coherent {
    block: Block,
}

// Shared between CPUs: concurrent access is made of single volatile or atomic operations, and what is not atomic (multi-word copies) is plain data whose
// coherence the ring protocol provides, on memory that a device may change anyway.
impl Coherent {
    /// Allocates `len` zeroed bytes.
    ///
    /// # Errors
    /// [`DmaError`] when the constraints cannot be met.
    #[track_caller]
    pub fn new(len: usize, constraints: DmaConstraints) -> Result<Self, DmaError> {
        Ok(Self { block: Block::new(len, constraints, Location::caller())? })
    }

    /// Device address of the byte at `offset`.
    pub const fn addr(&self, offset: usize) -> u64 {
        self.block.place().addr + offset as u64
    }

    /// Bytes.
    pub const fn len(&self) -> usize {
        self.block.place().layout.len
    }

    /// Whether it is empty (it never is).
    pub const fn is_empty(&self) -> bool {
        false
    }

    #[inline(always)]
    fn at<T>(&self, offset: usize) -> NonNull<T> {
        if offset.checked_add(size_of::<T>()).is_none_or(|end| end > self.block.place().len) {
            outside(offset, self.block.place().len);
        }
        // SAFETY: within the block, as just checked.
        unsafe { self.block.place().virt.add(offset).cast() }
    }

    /// Copies a value out, in the widest words that its place allows: an aligned word of 2, 4 or 8 bytes is read whole, whatever the
    /// alignment of `T` (wire formats have none).
    #[inline]
    pub fn read<T: FromBytes>(&self, offset: usize) -> T {
        let at = self.at::<T>(offset).cast::<u8>();
        let mut value = MaybeUninit::<T>::uninit();
        let to = value.as_mut_ptr().cast::<u8>();
        words::<T>(at, |word, width| {
            // SAFETY: `words` visits words within T at `at`, which is in bounds, aligned to their width there; `to` has room for a T, at
            // any alignment.
            unsafe {
                match width {
                    8 => to.add(word).cast::<u64>().write_unaligned(at.add(word).cast::<u64>().read_volatile()),
                    4 => to.add(word).cast::<u32>().write_unaligned(at.add(word).cast::<u32>().read_volatile()),
                    2 => to.add(word).cast::<u16>().write_unaligned(at.add(word).cast::<u16>().read_volatile()),
                    _ => to.add(word).write(at.add(word).read_volatile()),
                }
            }
        });
        // SAFETY: every byte was written, and any bytes make a valid T.
        unsafe { value.assume_init() }
    }

    /// Copies a value in, in words as [`Coherent::read`].
    #[inline]
    pub fn write<T: IntoBytes + Immutable>(&self, offset: usize, value: T) {
        let at = self.at::<T>(offset).cast::<u8>();
        let from = (&raw const value).cast::<u8>();
        words::<T>(at, |word, width| {
            // SAFETY: as in `read`, in the other direction; T has no padding, so all its bytes are initialised.
            unsafe {
                match width {
                    8 => at.add(word).cast::<u64>().write_volatile(from.add(word).cast::<u64>().read_unaligned()),
                    4 => at.add(word).cast::<u32>().write_volatile(from.add(word).cast::<u32>().read_unaligned()),
                    2 => at.add(word).cast::<u16>().write_volatile(from.add(word).cast::<u16>().read_unaligned()),
                    _ => at.add(word).write_volatile(from.add(word).read()),
                }
            }
        });
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

#[cold]
fn outside(offset: usize, len: usize) -> ! {
    panic!("offset {offset} is outside a shared block of {len} bytes")
}

/// Visits the bytes of a `T` at `at` as words: offset and width (8, 4, 2 or 1), each aligned at its place.
#[inline(always)]
fn words<T>(at: NonNull<u8>, mut visit: impl FnMut(usize, usize)) {
    let (addr, len) = (at.addr().get(), size_of::<T>());
    if matches!(len, 1 | 2 | 4 | 8) && addr.is_multiple_of(len) {
        return visit(0, len);
    }
    let mut done = 0;
    if addr.is_multiple_of(8) {
        // The usual case, without a test per word: the length is known at compile time.
        while done + 8 <= len {
            visit(done, 8);
            done += 8;
        }
        for width in [4, 2, 1] {
            if len & width != 0 {
                visit(done, width);
                done += width;
            }
        }
        return;
    }
    while done < len {
        let fits = |width: usize| done + width <= len && (addr + done).is_multiple_of(width);
        let width = if fits(8) {
            8
        } else if fits(4) {
            4
        } else if fits(2) {
            2
        } else {
            1
        };
        visit(done, width);
        done += width;
    }
}
