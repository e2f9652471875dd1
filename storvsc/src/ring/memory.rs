//! The memory of the rings, and the order of accesses to it. Any context.
//!
//! The rings' algorithm is generic over this, so that the very same code runs on DMA memory and under `loom`. Offsets are the driver's own
//! and in range.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering, fence};

use undercroft_hal::dma::{Coherent, DmaConstraints, DmaError};

use crate::wire::{PAGE, ring};

/// The ring to the host.
pub(crate) trait SenderMemory {
    /// Writes a word of the data area. Visible to the host no later than the next [`SenderMemory::publish`].
    fn set_word(&self, at: u32, word: u64);
    /// Stores how far was written, after everything written before (release).
    fn publish(&self, at: u32);
    /// Loads how far the host has read, before everything written afterwards (acquire).
    fn out(&self) -> u32;
    /// Loads whether the host wants no signals.
    fn mask(&self) -> u32;
    /// Stores how many free bytes are waited for; 0 for none.
    fn set_pending(&self, bytes: u32);
    /// Orders every store before it before every load after it (a full fence).
    fn full_fence(&self);
}

/// The ring from the host.
pub(crate) trait ReceiverMemory {
    /// Reads a word of the data area.
    fn word(&self, at: u32) -> u64;
    /// Loads how far the host has written, before everything read afterwards (acquire).
    fn written(&self) -> u32;
    /// Stores how far was read, after everything read before (release).
    fn set_out(&self, at: u32);
    /// Stores whether signals are wanted.
    fn set_mask(&self, mask: u32);
    /// Loads how many free bytes the host waits for.
    fn pending(&self) -> u32;
    /// Orders every store before it before every load after it (a full fence).
    fn full_fence(&self);
}

/// Both rings of a channel: pages to the host, then pages from it, each with a control page first.
#[derive(Debug, Clone)]
pub(crate) struct Ring {
    block: Arc<Coherent>,
    up_pages: u32,
}

impl Ring {
    /// Rings of this many data pages, at least one each.
    pub(crate) fn new(up: u32, down: u32) -> Result<Self, DmaError> {
        let (up, down) = (up.max(1) + 1, down.max(1) + 1);
        let block = Coherent::new((up + down) as usize * PAGE, DmaConstraints::ANY)?;
        let this = Self { block: Arc::new(block), up_pages: up };
        this.control(0, ring::FEATURES).store(ring::FEATURE_PENDING_SEND.to_le(), Ordering::Relaxed);
        Ok(this)
    }

    /// The pages' numbers, as the host wants them.
    pub(crate) fn pages(&self) -> impl ExactSizeIterator<Item = u64> + Clone + '_ {
        let first = self.block.addr(0) / PAGE as u64;
        (0..self.block.len() / PAGE).map(move |page| first + page as u64)
    }

    /// The page where the ring from the host starts.
    pub(crate) const fn down_page(&self) -> u32 {
        self.up_pages
    }

    /// The ring to the host.
    pub(crate) fn up(&self) -> Up {
        Up(self.clone())
    }

    /// The ring from the host.
    pub(crate) fn down(&self) -> Down {
        Down(self.clone())
    }

    fn control(&self, page: u32, offset: usize) -> &AtomicU32 {
        self.block.atomic_u32(page as usize * PAGE + offset)
    }

    fn load(&self, page: u32, offset: usize, order: Ordering) -> u32 {
        u32::from_le(self.control(page, offset).load(order))
    }
}

/// The memory of the ring to the host.
#[derive(Debug)]
pub(crate) struct Up(Ring);

impl Up {
    /// Bytes of the data area.
    pub(crate) fn size(&self) -> u32 {
        (self.0.up_pages - 1) * PAGE as u32
    }
}

/// The memory of the ring from the host.
#[derive(Debug)]
pub(crate) struct Down(Ring);

impl Down {
    /// Bytes of the data area.
    pub(crate) fn size(&self) -> u32 {
        self.0.block.len() as u32 - (self.0.up_pages + 1) * PAGE as u32
    }
}

impl SenderMemory for Up {
    #[inline]
    fn set_word(&self, at: u32, word: u64) {
        self.0.block.write(PAGE + at as usize, word.to_le());
    }
    fn publish(&self, at: u32) {
        self.0.control(0, ring::IN).store(at.to_le(), Ordering::Release);
    }
    fn out(&self) -> u32 {
        self.0.load(0, ring::OUT, Ordering::Acquire)
    }
    fn mask(&self) -> u32 {
        self.0.load(0, ring::INTERRUPT_MASK, Ordering::Relaxed)
    }
    fn set_pending(&self, bytes: u32) {
        self.0.control(0, ring::PENDING_SEND).store(bytes.to_le(), Ordering::Relaxed);
    }
    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}

impl ReceiverMemory for Down {
    #[inline]
    fn word(&self, at: u32) -> u64 {
        u64::from_le(self.0.block.read((self.0.up_pages as usize + 1) * PAGE + at as usize))
    }
    fn written(&self) -> u32 {
        self.0.load(self.0.up_pages, ring::IN, Ordering::Acquire)
    }
    fn set_out(&self, at: u32) {
        self.0.control(self.0.up_pages, ring::OUT).store(at.to_le(), Ordering::Release);
    }
    fn set_mask(&self, mask: u32) {
        self.0.control(self.0.up_pages, ring::INTERRUPT_MASK).store(mask.to_le(), Ordering::Relaxed);
    }
    fn pending(&self) -> u32 {
        self.0.load(self.0.up_pages, ring::PENDING_SEND, Ordering::Relaxed)
    }
    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}
