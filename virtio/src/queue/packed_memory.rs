//! The memory of a packed ring. Any context. The algorithm is generic over it, as [`super::RingMemory`] says.

use core::sync::atomic::{Ordering, fence};

use undercroft_hal::dma::{Coherent, DmaConstraints, DmaError};

use super::memory::Tables;
use crate::wire::ring::packed::{PackedDescriptor, PackedLayout};

/// A packed ring's shared memory. Indices into it are the driver's own and in range.
pub trait PackedMemory {
    /// Writes a descriptor, all but its flags.
    fn set_descriptor(&self, index: u16, addr: u64, len: u32, id: u16);
    /// Writes a descriptor's flags. Visible to the device no later than the next [`PackedMemory::publish`].
    fn set_flags(&self, index: u16, flags: u16);
    /// Stores a descriptor's flags, after everything written before (release).
    fn publish(&self, index: u16, flags: u16);
    /// Loads a descriptor's flags, before everything read afterwards (acquire).
    fn flags(&self, index: u16) -> u16;
    /// Copies id and length of a used descriptor out.
    fn used(&self, index: u16) -> (u16, u32);
    /// Writes a descriptor of buffer `id`'s own table.
    fn set_indirect(&self, id: u16, index: u16, descriptor: PackedDescriptor);
    /// Device address of buffer `id`'s own table.
    fn table_addr(&self, id: u16) -> u64;
    /// Entries of each buffer's own table; 0 where there are none.
    fn table_len(&self) -> u16;
    /// Stores what the driver wants to hear, both fields at once.
    fn set_driver_event(&self, at: u16, how: u16);
    /// Loads what the device wants to hear, both fields at once.
    fn device_event(&self) -> (u16, u16);
    /// Orders every store before it before every load after it (a full fence).
    fn full_fence(&self);
    /// Zeroes everything that the device reads or writes. It uses none of it.
    fn clear(&self);
}

/// Packed ring memory that a device sees.
#[derive(Debug)]
pub struct SharedPacked {
    block: Coherent,
    layout: PackedLayout,
    tables: Option<Tables>,
}

const FLAGS: usize = 14;

impl SharedPacked {
    /// Memory for a ring of `size` descriptors, with `table_len` entries in each buffer's own table (0 for none).
    ///
    /// # Errors
    /// [`DmaError`].
    pub fn new(size: u16, table_len: u16, constraints: DmaConstraints) -> Result<Self, DmaError> {
        let layout = PackedLayout::new(size);
        let block = Coherent::new(layout.bytes, constraints)?;
        Ok(Self { block, layout, tables: Tables::new(size, table_len, constraints)? })
    }

    /// Device addresses of the descriptors, of what the driver wants to hear and of what the device wants to hear.
    pub const fn addresses(&self) -> [u64; 3] {
        [self.block.addr(0), self.block.addr(self.layout.driver_event), self.block.addr(self.layout.device_event)]
    }
}

impl PackedMemory for SharedPacked {
    #[inline]
    fn set_descriptor(&self, index: u16, addr: u64, len: u32, id: u16) {
        let at = 16 * usize::from(index);
        self.block.write(at, addr.to_le());
        self.block.write(at + 8, len.to_le());
        self.block.write(at + 12, id.to_le());
    }

    #[inline]
    fn set_flags(&self, index: u16, flags: u16) {
        self.block.atomic_u16(16 * usize::from(index) + FLAGS).store(flags.to_le(), Ordering::Relaxed);
    }

    #[inline]
    fn publish(&self, index: u16, flags: u16) {
        self.block.atomic_u16(16 * usize::from(index) + FLAGS).store(flags.to_le(), Ordering::Release);
    }

    #[inline]
    fn flags(&self, index: u16) -> u16 {
        u16::from_le(self.block.atomic_u16(16 * usize::from(index) + FLAGS).load(Ordering::Acquire))
    }

    #[inline]
    fn used(&self, index: u16) -> (u16, u32) {
        let at = 16 * usize::from(index);
        let len = u32::from_le(self.block.atomic_u32(at + 8).load(Ordering::Relaxed));
        (u16::from_le(self.block.atomic_u16(at + 12).load(Ordering::Relaxed)), len)
    }

    #[inline]
    fn set_indirect(&self, id: u16, index: u16, descriptor: PackedDescriptor) {
        if let Some(tables) = &self.tables {
            tables.write(id, index, descriptor);
        }
    }

    #[inline]
    fn table_addr(&self, id: u16) -> u64 {
        self.tables.as_ref().map_or(0, |tables| tables.addr(id))
    }

    #[inline]
    fn table_len(&self) -> u16 {
        self.tables.as_ref().map_or(0, Tables::len)
    }

    #[inline]
    fn set_driver_event(&self, at: u16, how: u16) {
        let both = u32::from(at) | u32::from(how) << 16;
        self.block.atomic_u32(self.layout.driver_event).store(both.to_le(), Ordering::Relaxed);
    }

    #[inline]
    fn device_event(&self) -> (u16, u16) {
        let both = u32::from_le(self.block.atomic_u32(self.layout.device_event).load(Ordering::Relaxed));
        (both as u16, (both >> 16) as u16)
    }

    #[inline]
    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn clear(&self) {
        self.block.clear();
    }
}
