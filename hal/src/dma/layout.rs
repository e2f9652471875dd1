//! What a device can reach: the constraints of an allocation and the block that satisfies them.

use core::fmt;
use core::ptr::NonNull;

use super::Segment;

/// What a device demands of the memory it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaConstraints {
    /// The highest device address that may be used (`u64::MAX` for a 64-bit device).
    pub max_addr: u64,
    /// Alignment in bytes, a power of two.
    pub align: usize,
    /// No allocation may cross a multiple of this power of two; 0 for no boundary.
    pub boundary: u64,
}

impl DmaConstraints {
    /// A 64-bit device without alignment or boundary demands beyond the page.
    pub const ANY: Self = Self { max_addr: u64::MAX, align: 4096, boundary: 0 };
    /// A device with 32 address bits.
    pub const BELOW_4G: Self = Self { max_addr: u32::MAX as u64, align: 4096, boundary: 0 };

    /// Whether a device with these constraints can be given `segment` as it is.
    pub const fn admit(&self, segment: Segment) -> bool {
        let Some(last) = segment.addr.checked_add((segment.len as u64).saturating_sub(1)) else { return false };
        let whole = self.boundary == 0 || segment.addr / self.boundary == last / self.boundary;
        last <= self.max_addr && segment.addr.is_multiple_of(self.align as u64) && whole && segment.len > 0
    }
}

/// Size and constraints of one allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaLayout {
    /// Bytes; more than zero.
    pub len: usize,
    /// Where it may lie.
    pub constraints: DmaConstraints,
}

/// A block from [`Platform::dma_alloc`](crate::Platform::dma_alloc).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaBlock {
    /// Where the CPU sees it.
    pub virt: NonNull<u8>,
    /// Where devices see it.
    pub addr: u64,
    /// Bytes, at least what was asked for.
    pub len: usize,
    /// The layout that was asked for: freeing needs the same one.
    pub layout: DmaLayout,
}

/// Why memory could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmaError {
    /// None free that meets the constraints.
    NoMemory,
    /// The layout makes no sense: zero length, an alignment that is no power of two, or longer than its boundary.
    BadLayout,
}

impl fmt::Display for DmaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMemory => "no memory that the device can reach",
            Self::BadLayout => "the DMA layout is not valid",
        })
    }
}

impl core::error::Error for DmaError {}

impl DmaLayout {
    /// A layout, checked.
    ///
    /// # Errors
    /// [`DmaError::BadLayout`].
    pub const fn new(len: usize, constraints: DmaConstraints) -> Result<Self, DmaError> {
        let DmaConstraints { align, boundary, .. } = constraints;
        if len == 0 || !align.is_power_of_two() {
            return Err(DmaError::BadLayout);
        }
        if boundary != 0 && (!boundary.is_power_of_two() || len as u64 > boundary) {
            return Err(DmaError::BadLayout);
        }
        Ok(Self { len, constraints })
    }
}
