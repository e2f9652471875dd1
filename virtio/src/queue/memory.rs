//! The memory of a ring: what driver and device share, and the order of accesses to it. Any context.
//!
//! The ring's algorithm is generic over this, so that the very same code runs on DMA memory and under `loom`.

use core::sync::atomic::{Ordering, fence};

use undercroft_hal::dma::{Coherent, DmaConstraints, DmaError};
use zerocopy::{Immutable, IntoBytes};

use crate::wire::ring::{Descriptor, Layout, UsedElement};

/// A split ring's shared memory. Indices into it are the driver's own and in range.
pub trait RingMemory {
    /// Writes a descriptor of the ring's table.
    fn set_descriptor(&self, index: u16, descriptor: Descriptor);
    /// Writes a descriptor of the ring's table, as words.
    #[inline]
    fn set_words(&self, index: u16, words: [u64; 2]) {
        self.set_descriptor(index, Descriptor::of_words(words));
    }
    /// Writes a descriptor of chain `head`'s own table.
    fn set_indirect(&self, head: u16, index: u16, descriptor: Descriptor);
    /// Writes the first `N` descriptors of chain `head`'s own table, which has as many, as words: see [`Descriptor::words`].
    #[inline]
    fn set_table<const N: usize>(&self, head: u16, words: [[u64; 2]; N]) {
        for (index, words) in (0..).zip(words) {
            self.set_indirect(head, index, Descriptor::of_words(words));
        }
    }
    /// Device address of chain `head`'s own table.
    fn table_addr(&self, head: u16) -> u64;
    /// Entries of each chain's own table; 0 where there are none.
    fn table_len(&self) -> u16;
    /// Writes an entry of the available ring. Visible to the device no later than the next [`RingMemory::publish`].
    fn set_available(&self, entry: u16, head: u16);
    /// Stores the available index, after everything written before (release).
    fn publish(&self, index: u16);
    /// Stores the available ring's flags.
    fn set_available_flags(&self, flags: u16);
    /// Stores the index at which the driver wants an interrupt.
    fn set_used_event(&self, index: u16);
    /// Loads the used index, before everything read afterwards (acquire).
    fn used_index(&self) -> u16;
    /// Loads the used ring's flags.
    fn used_flags(&self) -> u16;
    /// Copies an element of the used ring out.
    fn used(&self, entry: u16) -> UsedElement;
    /// Loads the index at which the device wants a kick.
    fn available_event(&self) -> u16;
    /// Orders every store before it before every load after it (a full fence).
    fn full_fence(&self);
    /// Zeroes everything that the device reads or writes. It uses none of it.
    fn clear(&self);
    /// What the shared memory now says follows descriptor `index`: only the hazard X35 asks.
    #[cfg(test)]
    fn shared_next(&self, index: u16) -> Option<u16>;
}

/// Ring memory that a device sees.
#[derive(Debug)]
pub struct SharedRing {
    block: Coherent,
    layout: Layout,
    used_event: usize,
    available_event: usize,
    tables: Option<Tables>,
}

/// A table of descriptors for each chain, of either format.
#[derive(Debug)]
pub(super) struct Tables {
    block: Coherent,
    len: u16,
}

impl Tables {
    /// `size` tables of `len` entries; `None` for no entries.
    pub(super) fn new(size: u16, len: u16, constraints: DmaConstraints) -> Result<Option<Self>, DmaError> {
        if len == 0 {
            return Ok(None);
        }
        let bytes = usize::from(size) * usize::from(len) * size_of::<Descriptor>();
        Ok(Some(Self { block: Coherent::new(bytes, constraints)?, len }))
    }

    pub(super) const fn len(&self) -> u16 {
        self.len
    }

    #[inline]
    const fn at(&self, head: u16, index: u16) -> usize {
        16 * (head as usize * self.len as usize + index as usize)
    }

    /// Device address of chain `head`'s table.
    #[inline]
    pub(super) const fn addr(&self, head: u16) -> u64 {
        self.block.addr(self.at(head, 0))
    }

    #[inline]
    pub(super) fn write<T: IntoBytes + Immutable>(&self, head: u16, index: u16, descriptor: T) {
        self.block.write(self.at(head, index), descriptor);
    }
}

impl SharedRing {
    /// Memory for a ring of `size` descriptors (a power of two), laid out as `layout` says, with `table_len` entries in each chain's own
    /// table (0 for none).
    ///
    /// # Errors
    /// [`DmaError`].
    pub fn new(size: u16, layout: Layout, table_len: u16, constraints: DmaConstraints) -> Result<Self, DmaError> {
        let block = Coherent::new(layout.bytes, constraints)?;
        let tables = Tables::new(size, table_len, constraints)?;
        let used_event = layout.available + 4 + 2 * usize::from(size);
        let available_event = layout.used + 4 + 8 * usize::from(size);
        Ok(Self { block, layout, used_event, available_event, tables })
    }

    /// Device addresses of descriptor table, available ring and used ring.
    pub const fn addresses(&self) -> [u64; 3] {
        [
            self.block.addr(self.layout.descriptors),
            self.block.addr(self.layout.available),
            self.block.addr(self.layout.used),
        ]
    }
}

impl RingMemory for SharedRing {
    #[inline]
    fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        self.block.write(16 * usize::from(index), descriptor);
    }

    #[inline(always)]
    fn set_words(&self, index: u16, [addr, rest]: [u64; 2]) {
        self.block.write(16 * usize::from(index), [addr.to_le(), rest.to_le()]);
    }

    #[inline]
    fn set_indirect(&self, head: u16, index: u16, descriptor: Descriptor) {
        if let Some(tables) = &self.tables {
            tables.write(head, index, descriptor);
        }
    }

    #[inline(always)]
    fn set_table<const N: usize>(&self, head: u16, mut words: [[u64; 2]; N]) {
        if let Some(tables) = &self.tables {
            // In the device's order.
            words.iter_mut().flatten().for_each(|word| *word = word.to_le());
            tables.write(head, 0, words);
        }
    }

    #[inline]
    fn table_addr(&self, head: u16) -> u64 {
        self.tables.as_ref().map_or(0, |tables| tables.addr(head))
    }

    #[inline]
    fn table_len(&self) -> u16 {
        self.tables.as_ref().map_or(0, Tables::len)
    }

    #[inline(always)]
    fn set_available(&self, entry: u16, head: u16) {
        self.block.write(self.layout.available + 4 + 2 * usize::from(entry), head.to_le());
    }

    #[inline]
    fn publish(&self, index: u16) {
        self.block.atomic_u16(self.layout.available + 2).store(index.to_le(), Ordering::Release);
    }

    #[inline]
    fn set_available_flags(&self, flags: u16) {
        self.block.atomic_u16(self.layout.available).store(flags.to_le(), Ordering::Relaxed);
    }

    #[inline]
    fn set_used_event(&self, index: u16) {
        self.block.atomic_u16(self.used_event).store(index.to_le(), Ordering::Relaxed);
    }

    #[inline]
    fn used_index(&self) -> u16 {
        u16::from_le(self.block.atomic_u16(self.layout.used + 2).load(Ordering::Acquire))
    }

    #[inline]
    fn used_flags(&self) -> u16 {
        u16::from_le(self.block.atomic_u16(self.layout.used).load(Ordering::Relaxed))
    }

    #[inline]
    fn used(&self, entry: u16) -> UsedElement {
        let at = self.layout.used + 4 + 8 * usize::from(entry);
        let [id, len] = [at, at + 4].map(|at| u32::from_le(self.block.atomic_u32(at).load(Ordering::Relaxed)));
        UsedElement { id: id.into(), len: len.into() }
    }

    #[inline]
    fn available_event(&self) -> u16 {
        u16::from_le(self.block.atomic_u16(self.available_event).load(Ordering::Relaxed))
    }

    #[inline]
    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn clear(&self) {
        self.block.clear();
    }

    #[cfg(test)]
    fn shared_next(&self, index: u16) -> Option<u16> {
        let descriptor: Descriptor = self.block.read(16 * usize::from(index));
        (descriptor.flags.get() & crate::wire::ring::DESC_NEXT != 0).then(|| descriptor.next.get())
    }
}
