//! What the other end says of a disk, once it is connected, and what we make of it.

use undercroft_block::{Features, Info, Limits};
use undercroft_hal::dma::DmaConstraints;

use super::error::ConnectError;
use super::pool::MOST_SEGMENTS;
use super::wire::{DIRECT_SEGMENTS, Operation, SECTOR};

const PAGE: u32 = 4096;
/// In `info`.
const READ_ONLY: u64 = 4;

/// What xenstore holds of a connected backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) sectors: u64,
    pub(crate) sector_size: u64,
    pub(crate) physical_sector_size: u64,
    pub(crate) info: u64,
    pub(crate) flush: bool,
    pub(crate) barrier: bool,
    pub(crate) discard: bool,
    pub(crate) indirect_segments: u64,
}

/// What requests look like to this disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Shift from blocks to sectors.
    pub(crate) shift: u32,
    /// How a flush is said, if one is needed at all.
    pub(crate) flush: Option<Operation>,
    /// Segments of a request, direct or indirect.
    pub(crate) segments: usize,
}

/// The disk's shape, with `queues` rings of `depth` requests each.
///
/// # Errors
/// [`ConnectError::Bad`].
pub(crate) fn shape(told: &Told, queues: u16, depth: u32) -> Result<(Info, Shape), ConnectError> {
    let Told { sectors, sector_size, physical_sector_size, info, .. } = *told;
    let is_size = |size: u64| size.is_power_of_two() && (u64::from(SECTOR)..=u64::from(PAGE)).contains(&size);
    if !is_size(sector_size) {
        return Err(ConnectError::Bad("the sector size", sector_size));
    }
    if sectors == 0 || sectors > u64::MAX / u64::from(SECTOR) {
        return Err(ConnectError::Bad("the number of sectors", sectors));
    }
    let block_size = sector_size as u32;
    let shift = (block_size / SECTOR).ilog2();
    let segments = (told.indirect_segments as usize).clamp(DIRECT_SEGMENTS, MOST_SEGMENTS);
    // Data is packed into whole pages, whatever pieces it comes in.
    let bytes = segments as u32 * PAGE;
    let flush = match (told.flush, told.barrier) {
        (true, _) => Some(Operation::FLUSH),
        (false, true) => Some(Operation::BARRIER),
        (false, false) => None,
    };
    let mut features = Features::empty();
    features.set(Features::READ_ONLY, info & READ_ONLY != 0);
    features.set(Features::VOLATILE_CACHE, flush.is_some());
    features.set(Features::DISCARD, told.discard && info & READ_ONLY == 0);
    // A physical block that cannot be is none of ours.
    let physical = if physical_sector_size.is_power_of_two() && physical_sector_size >= sector_size {
        physical_sector_size.min(1 << 20) as u32
    } else {
        block_size
    };
    let limits = Limits {
        max_segments: (bytes / SECTOR).min(u32::from(u16::MAX)) as u16,
        max_segment_bytes: bytes,
        joint: 0,
        max_transfer_bytes: bytes,
        max_discard_blocks: if features.contains(Features::DISCARD) { u32::MAX >> shift } else { 0 },
        max_write_zeroes_blocks: 0,
        dma: DmaConstraints::ANY,
    };
    let info = Info {
        capacity: sectors >> shift,
        block_size,
        physical_block_size: physical,
        queues,
        depth: depth * u32::from(queues),
        features,
        limits,
    };
    Ok((info, Shape { shift, flush, segments }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: Told = Told {
        sectors: 4096,
        sector_size: 512,
        physical_sector_size: 512,
        info: 0,
        flush: true,
        barrier: true,
        discard: true,
        indirect_segments: 256,
    };

    #[test]
    fn sectors_are_of_512_bytes_whatever_a_block_is() {
        let (info, shape) = super::shape(&Told { sector_size: 4096, ..TOLD }, 1, 32).unwrap();
        assert_eq!((info.capacity, info.block_size, shape.shift), (512, 4096, 3));
        assert_eq!(info.bytes(), 4096 * 512);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for sector_size in [0, 1, 511, 513, 8192, u64::MAX] {
            let bad = super::shape(&Told { sector_size, ..TOLD }, 1, 32).unwrap_err();
            assert_eq!(bad, ConnectError::Bad("the sector size", sector_size));
        }
        for sectors in [0, u64::MAX] {
            assert!(super::shape(&Told { sectors, ..TOLD }, 1, 32).is_err());
        }
        for physical_sector_size in [0, 3, u64::MAX] {
            assert_eq!(super::shape(&Told { physical_sector_size, ..TOLD }, 1, 32).unwrap().0.physical_block_size, 512);
        }
    }

    #[test]
    fn limits_follow_the_segments() {
        for (told, segments) in [(0, 11), (11, 11), (12, 12), (32, 32), (33, 32), (u64::MAX, 32)] {
            let (info, shape) = super::shape(&Told { indirect_segments: told, ..TOLD }, 1, 32).unwrap();
            assert_eq!((shape.segments, info.limits.max_transfer_bytes), (segments, segments as u32 * 4096));
        }
    }

    #[test]
    fn a_flush_is_said_as_the_host_understands_it() {
        let flush = |flush, barrier| super::shape(&Told { flush, barrier, ..TOLD }, 1, 32).unwrap().1.flush;
        assert_eq!(flush(true, true), Some(Operation::FLUSH));
        assert_eq!(flush(false, true), Some(Operation::BARRIER));
        assert_eq!(flush(false, false), None);
    }

    #[test]
    fn a_read_only_disk_discards_nothing() {
        let info = super::shape(&Told { info: 4, ..TOLD }, 1, 32).unwrap().0;
        assert!(info.features.contains(Features::READ_ONLY) && !info.features.contains(Features::DISCARD));
    }
}
