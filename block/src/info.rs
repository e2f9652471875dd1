//! What a device is and what it takes. Any context.

use alloc::string::String;

use bitflags::bitflags;
use undercroft_hal::dma::DmaConstraints;

bitflags! {
    /// What a device can do beyond reading and writing.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Features: u32 {
        /// Writes may be refused: the device is read only.
        const READ_ONLY = 1 << 0;
        /// There is a volatile write cache: durability needs a flush.
        const VOLATILE_CACHE = 1 << 1;
        /// Writes may bypass the cache ([`crate::Request::fua`]).
        const FUA = 1 << 2;
        /// [`crate::Op::Discard`].
        const DISCARD = 1 << 3;
        /// [`crate::Op::WriteZeroes`].
        const WRITE_ZEROES = 1 << 4;
    }
}

/// What one request may be at most. The splitter cuts requests to these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Segments of data.
    pub max_segments: u16,
    /// Bytes of one segment.
    pub max_segment_bytes: u32,
    /// Where segments meet: all but the first begin, and all but the last end, at a multiple of this power of two; 0 for anywhere. A device
    /// that takes one range of whole pages has its page's size here.
    pub joint: u32,
    /// Bytes of data in all.
    pub max_transfer_bytes: u32,
    /// Blocks of one discard; 0 where there is none.
    pub max_discard_blocks: u32,
    /// Blocks of one write-zeroes; 0 where there is none.
    pub max_write_zeroes_blocks: u32,
    /// Where data may lie.
    pub dma: DmaConstraints,
}

impl Limits {
    /// Whether the device takes a segment that begins at `addr` behind one that ends before `end`.
    pub const fn may_meet(&self, end: u64, addr: u64) -> bool {
        self.joint == 0 || end.is_multiple_of(self.joint as u64) && addr.is_multiple_of(self.joint as u64)
    }
}

/// A device's present shape. Capacity may change while it runs ([`crate::Event::Resized`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Logical blocks.
    pub capacity: u64,
    /// Bytes of a logical block: a power of two from 512 to 65,536.
    pub block_size: u32,
    /// Bytes of a physical block: a multiple of `block_size`.
    pub physical_block_size: u32,
    /// Queues that take requests independently.
    pub queues: u16,
    /// Requests in flight at most, over all queues.
    pub depth: u32,
    /// Capabilities.
    pub features: Features,
    /// Limits of a request.
    pub limits: Limits,
}

impl Info {
    /// Bytes of the whole device, saturating.
    pub const fn bytes(&self) -> u64 {
        self.capacity.saturating_mul(self.block_size as u64)
    }
}

/// Who a device is. Fixed for its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The driver, by its crate's name for it: `virtio-blk`.
    pub driver: &'static str,
    /// Where it is: `pci 0000:00:04.0`, with target and LUN where there are some.
    pub controller: String,
    /// Serial number, printable ASCII, empty if the device gives none.
    pub serial: String,
    /// Vendor and product, empty if the device gives none.
    pub model: String,
    /// How it interrupts: `msi-x:3`, `intx`, `mmio`.
    pub interrupts: String,
    /// Negotiated transport features worth telling a user, separated by single spaces: `event-idx indirect`.
    pub transport: String,
}
